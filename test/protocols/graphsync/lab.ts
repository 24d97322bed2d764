/* Graphs to ask for, sides that ask and answer, and a peer whose every word is scripted. */
import { expect } from 'vitest'
import { concat } from '../../../src/bytes.ts'
import { settle, systemEnv, type Env } from '../../../src/env.ts'
import type { ProtocolStream } from '../../../src/host.ts'
import { encodeCbor } from '../../../src/ipld/cbor.ts'
import { cidOf, codec, type CID } from '../../../src/ipld/cid.ts'
import type { IpldNode } from '../../../src/ipld/model.ts'
import { selectors } from '../../../src/ipld/selectors.ts'
import {
  createGraphsync,
  type Graphsync,
  type GraphsyncOptions,
  type GraphsyncProgress,
  type GraphsyncRequest,
} from '../../../src/protocols/graphsync/graphsync.ts'
import { readFrames } from '../../../src/frames.ts'
import {
  MetadataReader,
  MetadataWriter,
  decodeMessage,
  encodeMessage,
  protocolId,
  type GraphsyncMessage,
  type LinkAction,
  type OutgoingMessage,
  type WireResponse,
} from '../../../src/protocols/graphsync/wire.ts'
import { prefixed } from '../../../src/stream.ts'
import { MemoryBlocks } from '../../../src/store/memory-blocks.ts'
import { FakeHost } from '../bitswap/fake-host.ts'

export interface Block {
  cid: CID
  bytes: Uint8Array
}

export const all = selectors.all()

export function node(value: IpldNode): Block {
  const bytes = encodeCbor(value)
  return { cid: cidOf(codec.dagCbor, bytes), bytes }
}

export function raw(number: number, size = 100): Block {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (number * 31 + i * 7 + (i >> 8)) & 255
  if (size >= 4) new DataView(bytes.buffer).setUint32(0, number)
  return { cid: cidOf(codec.raw, bytes), bytes }
}

/** Blocks in the order of a walk of all; the root first. */
export function chain(length: number, size = 100, salt = 0): Block[] {
  const out: Block[] = []
  let next: CID | null = null
  for (let i = length - 1; i >= 0; i--) {
    const block: Block = node({ i, salt, pad: new Uint8Array(size), next })
    out.unshift(block)
    next = block.cid
  }
  return out
}

/** A root with `width` raw leaves. */
export function fan(width: number, size = 100, salt = 0): Block[] {
  const leaves = Array.from({ length: width }, (_, i) => raw(i + salt * 1000, size))
  return [node({ leaves: leaves.map(({ cid }) => cid) }), ...leaves]
}

export function rootOf(blocks: readonly Block[]): CID {
  return (blocks[0] as Block).cid
}

export async function storeOf(blocks: Iterable<Block> = []): Promise<MemoryBlocks> {
  const store = new MemoryBlocks()
  for (const { cid, bytes } of blocks) await store.put(cid, bytes)
  return store
}

export interface Side {
  host: FakeHost
  store: MemoryBlocks
  graphsync: Graphsync
  peer: FakeHost['peerId']
}

const running: Graphsync[] = []
const hosts: FakeHost[] = []

/** To be called after each test. */
export async function cleanUp(): Promise<void> {
  await Promise.all(running.splice(0).map((graphsync) => graphsync.stop()))
  for (const host of hosts.splice(0)) expect(host.errors).toEqual([])
}

export async function side(
  number: number,
  blocks: Iterable<Block> = [],
  options: GraphsyncOptions = {},
  env: Env = systemEnv(),
): Promise<Side> {
  const host = new FakeHost(number, env)
  const store = await storeOf(blocks)
  const graphsync = createGraphsync(host, store, options)
  graphsync.start()
  running.push(graphsync)
  hosts.push(host)
  return { host, store, graphsync, peer: host.peerId }
}

export async function collect(request: GraphsyncRequest): Promise<GraphsyncProgress[]> {
  const out: GraphsyncProgress[] = []
  for await (const event of request) out.push(event)
  return out
}

/** The events in short: `+3` a block that came, `=3` one of the store, `-3` a missing one, by their place in `blocks`. */
export function told(events: GraphsyncProgress[], blocks: Block[]): string {
  const place = new Map(blocks.map(({ cid }, i) => [cid.toString(), i]))
  return events
    .flatMap((event) => {
      if (event.kind === 'block') return `${event.fromPeer ? '+' : '='}${place.get(event.cid.toString())}`
      if (event.kind === 'missing') return `-${place.get(event.cid.toString())}`
      return event.kind === 'note' ? `!${event.status}` : []
    })
    .join(' ')
}

export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (condition()) return
    await settle()
  }
  throw new Error('it did not come to that')
}

export function metadata(...entries: [CID | Block, LinkAction][]): MetadataWriter {
  const out = new MetadataWriter()
  for (const [link, action] of entries) out.add(('cid' in link ? link.cid : link).bytes, action)
  return out
}

export function links(response: WireResponse): [cid: string, action: LinkAction][] {
  const out: [string, LinkAction][] = []
  const reader = new MetadataReader(response)
  for (; reader.left > 0; reader.next()) out.push([String(reader.cid), reader.action])
  return out
}

/** A peer whose every word is scripted. */
export class Script {
  readonly host: FakeHost
  readonly received: GraphsyncMessage[] = []
  readonly resets: unknown[] = []
  stream: ProtocolStream | undefined

  constructor(number: number, react: (message: GraphsyncMessage, script: Script) => void = () => {}) {
    this.host = new FakeHost(number)
    this.host.handle(protocolId, async (stream) => {
      try {
        await readFrames(stream, this.host.env, { maxBytes: 5e6, frameTimeoutMs: 1e6, what: 'a message' }, (frame) => {
          const message = decodeMessage(frame)
          this.received.push(message)
          react(message, this)
          return undefined
        })
      } catch (error) {
        this.resets.push(error)
      }
    })
  }

  get requests(): GraphsyncMessage['requests'] {
    return this.received.flatMap((m) => m.requests)
  }

  get responses(): GraphsyncMessage['responses'] {
    return this.received.flatMap((m) => m.responses)
  }

  async say(to: { peer: FakeHost['peerId'] }, message: OutgoingMessage): Promise<void> {
    await this.raw(to, concat(prefixed(...encodeMessage(message))))
  }

  async raw(to: { peer: FakeHost['peerId'] }, bytes: Uint8Array): Promise<void> {
    this.stream ??= await this.host.newStream(to.peer, protocolId)
    await this.stream.write(bytes)
  }
}
