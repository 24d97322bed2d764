/* The public names of `rhiza`; the parts are also importable one by one (package.json `exports`). */
export {
  createKit,
  type CatOptions,
  type ContentPath,
  type FetchOptions,
  type Kit,
  type KitOptions,
} from './kit/kit.ts'
export type { Capabilities } from './capabilities.ts'
export { createNode, type Node, type NodeOptions } from './node.ts'
export type {
  Connection,
  ConnectionProtocols,
  DialTarget,
  HandleOptions,
  Host,
  HostEvents,
  NewStreamOptions,
  ProtocolQuery,
  ProtocolStream,
  StreamContext,
  StreamHandler,
} from './host.ts'
export { BufferedStream, buffered, pair, type CloseInfo, type Datagrams, type Muxer, type Stream } from './stream.ts'
export {
  ClosedError,
  LimitError,
  ProtocolError,
  StorageError,
  TimeoutError,
  UnavailableError,
  errorCode,
  type Attempt,
  type ErrorCode,
} from './errors.ts'
export { Multiaddr, multiaddr } from './multiaddr.ts'
export { PeerId } from './peer/id.ts'
export {
  decodePrivateKey,
  decodePublicKey,
  generateKey,
  importPrivateKey,
  type KeyType,
  type PrivateKey,
  type PublicKey,
} from './peer/keys.ts'
export { MemoryBlocks } from './store/memory-blocks.ts'
export type { AddressBook, KnownAddr } from './peer/book.ts'
export type { BlockPair, Blockstore } from './store/blocks.ts'
export type { RecordStore } from './store/records.ts'
export { CID, parseCid } from './ipld/cid.ts'
export type { Dht, DhtMode, DhtOptions, QueryEvent } from './dht/dht.ts'
export type { Discoverer, Discovery, DiscoveryHost, Found, FoundPeer } from './discovery/discovery.ts'
export type { Env } from './env.ts'
export { codeText, connectionCode, streamCode } from './close-codes.ts'
export { traceEvents, traceLine, type Trace, type TraceEvent } from './trace.ts'
export { version } from './version.ts'
