/* Hosts joined in memory: what Bitswap needs of a node, without transports, security or identify. */
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { create } from 'multiformats/hashes/digest'
import { createHash } from 'node:crypto'
import { systemEnv, type Env } from '../../../src/env.ts'
import { ClosedError, UnavailableError } from '../../../src/errors.ts'
import type {
  Connection,
  Host,
  HostEvents,
  NewStreamOptions,
  ProtocolStream,
  StreamHandler,
} from '../../../src/host.ts'
import { deferred } from '../../../src/inbox.ts'
import { PeerId } from '../../../src/peer/id.ts'
import { pair, type CloseInfo, type Stream } from '../../../src/stream.ts'

export class FakeHost implements Host {
  readonly peerId: PeerId
  readonly env: Env
  readonly handlers = new Map<string, StreamHandler>()
  readonly open = new Map<string, FakeConnection>()
  readonly listeners = new Map<string, Set<(detail: never) => void>>()
  /** Who can be dialled. */
  readonly known = new Map<string, FakeHost>()
  /** Errors that handlers threw. */
  readonly errors: unknown[] = []
  streamsOpened = 0

  constructor(number: number, env: Env = systemEnv()) {
    const hash = createHash('sha256').update(`host ${number}`).digest()
    this.peerId = PeerId.decode(Uint8Array.of(0x12, 32, ...hash))
    this.env = env
  }

  handle(protocols: string | readonly string[], handler: StreamHandler): void {
    for (const id of [protocols].flat()) {
      if (this.handlers.has(id)) throw new TypeError(`${id} is taken`)
      this.handlers.set(id, handler)
    }
  }

  unhandle(protocols: string | readonly string[]): void {
    for (const id of [protocols].flat()) this.handlers.delete(id)
  }

  on<K extends keyof HostEvents>(event: K, listener: (detail: HostEvents[K]) => void): () => void {
    const set = this.listeners.get(event) ?? new Set()
    this.listeners.set(event, set)
    set.add(listener)
    return () => void set.delete(listener)
  }

  emit<K extends keyof HostEvents>(event: K, detail: HostEvents[K]): void {
    for (const listener of this.listeners.get(event) ?? []) listener(detail as never)
  }

  connections(peer?: PeerId): readonly Connection[] {
    const all = [...this.open.values()] as unknown as Connection[]
    return peer === undefined ? all : all.filter((c) => c.peer.equals(peer))
  }

  async dial(peer: PeerId | string | { toString(): string }): Promise<Connection> {
    const id = peer.toString()
    const open = this.open.get(id)
    if (open !== undefined) return open as unknown as Connection
    const other = this.known.get(id)
    if (other === undefined) throw new UnavailableError('no-address', `no address of ${id}`)
    join(this, other)
    return this.open.get(id) as unknown as Connection
  }

  async hangUp(peer: PeerId | string | { toString(): string }): Promise<void> {
    const other = this.open.get(peer.toString())?.other
    if (other !== undefined) part(this, other)
  }

  async newStream(
    peer: PeerId | string | { toString(): string },
    protocols: string | readonly string[],
    options: NewStreamOptions = {},
  ): Promise<ProtocolStream> {
    options.signal?.throwIfAborted()
    return (await this.dial(peer)).newStream(protocols, options)
  }
}

class FakeConnection {
  readonly id = 'fake'
  readonly direction = 'outbound'
  readonly limited = undefined
  readonly bytesIn = 0
  readonly streams: ProtocolStream[] = []
  readonly self: FakeHost
  readonly other: FakeHost
  readonly end = deferred<CloseInfo>()

  constructor(self: FakeHost, other: FakeHost) {
    this.self = self
    this.other = other
  }

  get peer(): PeerId {
    return this.other.peerId
  }

  get protocols(): readonly string[] {
    return [...this.other.handlers.keys()]
  }

  get closed(): Promise<CloseInfo> {
    return this.end.promise
  }

  async newStream(protocols: string | readonly string[]): Promise<ProtocolStream> {
    const protocol = [protocols].flat().find((id) => this.other.handlers.has(id))
    const handler = protocol === undefined ? undefined : this.other.handlers.get(protocol)
    const back = this.other.open.get(this.self.peerId.toString())
    if (protocol === undefined || handler === undefined || back === undefined) {
      throw new UnavailableError('no-protocol', 'no common protocol')
    }
    const [ours, theirs] = pair()
    const a = named(ours, protocol, 'outbound')
    const b = named(theirs, protocol, 'inbound')
    this.streams.push(a)
    back.streams.push(b)
    this.self.streamsOpened++
    const signal = new AbortController().signal
    void (async () => {
      try {
        await handler(b, { connection: back as unknown as Connection, protocol, signal })
      } catch (error) {
        this.other.errors.push(error)
        b.reset()
      }
    })()
    return a
  }
}

function named(stream: Stream, protocol: string, direction: 'inbound' | 'outbound'): ProtocolStream {
  return Object.assign(stream, { protocol, direction })
}

/** Connects two hosts, as identify would have it known. */
export function join(a: FakeHost, b: FakeHost): void {
  for (const [self, other] of [
    [a, b],
    [b, a],
  ] as const) {
    self.known.set(other.peerId.toString(), other)
    const connection = new FakeConnection(self, other)
    self.open.set(other.peerId.toString(), connection)
    self.emit('peer:connect', other.peerId)
    self.emit('peer:identify', { peer: other.peerId, connection: connection as unknown as Connection })
  }
}

/** The connection is lost; `forget`: and cannot be dialled again. */
export function part(a: FakeHost, b: FakeHost, forget = false): void {
  for (const [self, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const connection = self.open.get(other.peerId.toString())
    self.open.delete(other.peerId.toString())
    if (forget) self.known.delete(other.peerId.toString())
    const info: CloseInfo = { by: 'transport', code: 0 }
    for (const stream of connection?.streams ?? []) stream.reset(0, new ClosedError('connection lost', info))
    connection?.end.resolve(info)
  }
  a.emit('peer:disconnect', b.peerId)
  b.emit('peer:disconnect', a.peerId)
}

/** A raw block of `size` bytes, another for every `number`. */
export function block(number: number, size = 2000): { cid: CID; bytes: Uint8Array } {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (number * 31 + i * 7 + (i >> 8)) & 255
  new DataView(bytes.buffer).setUint32(0, number)
  return { cid: cidOf(bytes), bytes }
}

export function cidOf(bytes: Uint8Array): CID {
  return CID.createV1(raw.code, create(0x12, new Uint8Array(createHash('sha256').update(bytes).digest())))
}

/** A store with holes: a Map that counts what is read. */
export class FakeBlocks {
  readonly map = new Map<string, Uint8Array>()
  reads = 0

  constructor(blocks: Iterable<{ cid: CID; bytes: Uint8Array }> = []) {
    for (const { cid, bytes } of blocks) this.add(cid, bytes)
  }

  add(cid: CID, bytes: Uint8Array): void {
    this.map.set(String(cid.multihash.bytes), bytes)
  }

  async has(cid: CID): Promise<boolean> {
    return this.map.has(String(cid.multihash.bytes))
  }

  async get(cid: CID): Promise<Uint8Array | undefined> {
    this.reads++
    return this.map.get(String(cid.multihash.bytes))
  }

  async size(cid: CID): Promise<number | undefined> {
    return this.map.get(String(cid.multihash.bytes))?.length
  }
}
