/* Nodes with Bitswap over fake hosts, and peers whose every word is scripted. All stop after each test. */
import { CID } from 'multiformats/cid'
import { afterEach, expect } from 'vitest'
import { settle, systemEnv, type Env } from '../../../src/env.ts'
import type { ProtocolStream } from '../../../src/host.ts'
import { createBitswap, type Bitswap, type BitswapOptions } from '../../../src/protocols/bitswap/bitswap.ts'
import { readFrames } from '../../../src/frames.ts'
import {
  decodeMessage,
  encodeMessage,
  protocolIds,
  type BitswapMessage,
  type OutgoingMessage,
  type Version,
} from '../../../src/protocols/bitswap/wire.ts'
import { prefixed } from '../../../src/stream.ts'
import { FakeBlocks, FakeHost, type block } from './fake-host.ts'

export type Block = ReturnType<typeof block>

const running: Bitswap[] = []
const hosts: FakeHost[] = []
afterEach(async () => {
  await Promise.all(running.splice(0).map((bitswap) => bitswap.stop()))
  for (const host of hosts.splice(0)) expect(host.errors).toEqual([])
})

export interface Side {
  host: FakeHost
  store: FakeBlocks
  bitswap: Bitswap
  peer: FakeHost['peerId']
}

export function node(
  number: number,
  blocks: Iterable<Block> = [],
  options: BitswapOptions = {},
  env: Env = systemEnv(),
): Side {
  const host = new FakeHost(number, env)
  const store = new FakeBlocks(blocks)
  const bitswap = createBitswap({ host, blocks: store, ...options })
  bitswap.start()
  running.push(bitswap)
  hosts.push(host)
  return { host, store, bitswap, peer: host.peerId }
}

/** A peer whose every word is scripted. */
export class Script {
  readonly host: FakeHost
  readonly received: BitswapMessage[] = []
  readonly resets: unknown[] = []
  #stream: ProtocolStream | undefined

  constructor(
    number: number,
    protocol: string = protocolIds[0],
    react: (message: BitswapMessage, script: Script) => void = () => {},
    env: Env = systemEnv(),
  ) {
    this.host = new FakeHost(number, env)
    this.host.handle(protocol, async (stream) => {
      try {
        await readFrames(stream, this.host.env, { maxBytes: 5e6, frameTimeoutMs: 1e6, what: 'a message' }, (frame) => {
          const message = decodeMessage(frame)
          this.received.push(message)
          react(message, this)
        })
      } catch (error) {
        this.resets.push(error)
      }
    })
  }

  /** Every entry so far, as `+n`, `?n`, `-n` of the given blocks. */
  wants(blocks: Block[]): string[] {
    const number = new Map(blocks.map((b, i) => [b.cid.toString(), i]))
    return this.received.flatMap((m) =>
      m.wants.map(
        (w) => `${w.cancel ? '-' : w.type === 'have' ? '?' : '+'}${number.get(CID.decode(w.cid).toString())}`,
      ),
    )
  }

  async say(to: Side, message: OutgoingMessage, version: Version = '1.2'): Promise<void> {
    await this.raw(to, ...prefixed(...encodeMessage(message, version)))
  }

  async raw(to: Side, ...chunks: Uint8Array[]): Promise<void> {
    this.#stream ??= await this.host.newStream(to.peer, protocolIds)
    await this.#stream.write(...chunks)
  }

  get stream(): ProtocolStream | undefined {
    return this.#stream
  }
}

export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (condition()) return
    await settle()
  }
  throw new Error('it did not come to that')
}

export const want = (b: Block, more: object = {}) => ({
  cid: b.cid.bytes,
  priority: 1,
  cancel: false,
  type: 'block' as const,
  sendDontHave: true,
  ...more,
})
