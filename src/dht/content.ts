/* What a Kademlia network is for: who has a block, where a peer is, what stands under a name. */
import { equals } from '../bytes.ts'
import { leash } from '../deadline.ts'
import { UnavailableError, asError, type Attempt } from '../errors.ts'
import { deferred, quiet } from '../inbox.ts'
import type { PeerId } from '../peer/id.ts'
import type { Kad, LookupOutcome } from './kad.ts'
import type { PeerInfo } from './network.ts'
import type { QueryEvent } from './query.ts'
import { validatorFor, type RecordKey } from './validators.ts'
import type { Message } from './wire.ts'

export interface RoutingOptions {
  signal?: AbortSignal | undefined
  /** Hears of each step of the lookup. */
  onEvent?: ((event: QueryEvent) => void) | undefined
}

function emptyTable(kad: Kad): UnavailableError {
  const why = `the routing table of ${kad.protocol} is empty; connect to a peer that serves it`
  return new UnavailableError('unreachable', why)
}

/** The k closest peers to `key` that answer, the closest first. Rejects with UnavailableError when nobody does. */
export async function closestPeers(kad: Kad, key: Uint8Array, options: RoutingOptions = {}): Promise<PeerInfo[]> {
  if (kad.table.size === 0) throw emptyTable(kad)
  const { closest } = await kad.lookup({ type: 'FIND_NODE', key, ...options })
  if (closest.length === 0) throw new UnavailableError('unreachable', `no peer of ${kad.protocol} answers`)
  return closest
}

/** Sends `request` to each; those that took it. Rejects with UnavailableError when nobody did. */
async function tellAll(
  peers: readonly PeerInfo[],
  what: string,
  send: (to: PeerInfo) => Promise<unknown>,
): Promise<PeerInfo[]> {
  const failures: Attempt[] = []
  const told = await Promise.all(
    peers.map(async (to) => {
      try {
        await send(to)
        return to
      } catch (error) {
        failures.push({ what: to.peer.toString(), reason: asError(error) })
        return undefined
      }
    }),
  )
  const took = told.filter((to) => to !== undefined)
  if (took.length === 0) throw new UnavailableError('unreachable', `no peer takes ${what}`, failures)
  return took
}

/** Announces that we have what `multihash` names, to the k closest peers; who took it. */
export async function provide(kad: Kad, multihash: Uint8Array, options: RoutingOptions = {}): Promise<PeerInfo[]> {
  const { host } = kad
  const addrs = kad.ownAddrs()
  const own = { id: host.peerId.bytes, addrs: addrs.map((addr) => addr.bytes), connection: 1 }
  kad.providers.add(multihash, host.peerId, addrs)
  const closest = await closestPeers(kad, multihash, options)
  const request: Message = { type: 'ADD_PROVIDER', key: multihash, closerPeers: [], providerPeers: [own] }
  return tellAll(closest, 'the provider record', (to) => kad.network.tell(to, request, options))
}

/** Providers as they are found, each once; ends after `count` of them or with the lookup. */
export async function* findProviders(
  kad: Kad,
  multihash: Uint8Array,
  { count = Infinity, ...options }: RoutingOptions & { count?: number } = {},
): AsyncGenerator<PeerInfo, void, undefined> {
  const seen = new Set([kad.host.peerId.toString()])
  const found: PeerInfo[] = []
  let more = deferred<void>()
  const take = (infos: readonly PeerInfo[]): boolean => {
    for (const info of infos) {
      if (seen.size > count || seen.has(info.peer.toString())) continue
      seen.add(info.peer.toString())
      found.push(info)
    }
    more.resolve()
    return seen.size > count
  }
  if (take(kad.providers.of(multihash)) || kad.table.size === 0) {
    yield* found
    return
  }
  const { signal, end } = leash(options.signal)
  let over = false
  const lookup = quiet(
    kad
      .lookup({
        type: 'GET_PROVIDERS',
        key: multihash,
        onAnswer: (_from, answer) => take(kad.readPeers(answer.providerPeers)),
        onEvent: options.onEvent,
        signal,
      })
      .finally(() => {
        over = true
        more.resolve()
      }),
  )
  try {
    for (;;) {
      more = deferred()
      for (let info = found.shift(); info !== undefined; info = found.shift()) yield info
      if (over) break
      if (found.length === 0) await more.promise
    }
    await lookup
  } finally {
    end(new Error('nobody wants more providers'))
  }
}

/** Where a peer is: addresses that we connected to on the way where that was possible, else what others say. */
export async function findPeer(kad: Kad, peer: PeerId, options: RoutingOptions = {}): Promise<PeerInfo> {
  const connected = (): PeerInfo | undefined => {
    const connections = kad.host.connections(peer)
    if (connections.length === 0) return undefined
    // The port that it came from is not where it listens.
    const dialled = connections.filter(({ direction }) => direction === 'outbound')
    const addrs = [...dialled.map(({ remoteAddr }) => remoteAddr), ...kad.known(peer)]
    const unique = new Map(addrs.map((addr) => [addr.toString(), addr]))
    return { peer, addrs: unique.size > 0 ? [...unique.values()] : connections.map(({ remoteAddr }) => remoteAddr) }
  }
  const already = connected()
  if (already !== undefined) return already
  if (kad.table.size === 0) throw emptyTable(kad)
  const said = new Map<string, PeerInfo['addrs'][number]>()
  const { queries } = await kad.lookup({
    type: 'FIND_NODE',
    key: peer.bytes,
    ...options,
    onAnswer: (_from, { closerPeers }) => {
      const named = closerPeers.filter(({ id }) => equals(id, peer.bytes))
      for (const { addrs } of kad.readPeers(named)) for (const addr of addrs) said.set(addr.toString(), addr)
      return connected() !== undefined
    },
    // It is the closest of all, so it was asked: a client does not answer, but it is there.
    onFailure: () => connected() !== undefined,
  })
  const found = connected() ?? { peer, addrs: [...said.values()] }
  if (found.addrs.length > 0) return found
  throw new UnavailableError('not-found', `none of ${queries} peers of ${kad.protocol} knows where ${peer} is`)
}

export interface GetOptions extends RoutingOptions {
  /** Answers with a value after which it is enough. Default 16 (ipns-record.md: 16 of 20). */
  quorum?: number
}

/** The best value under `key`; peers that had none or an older one are told. Rejects with UnavailableError `not-found`. */
export async function getValue(kad: Kad, key: RecordKey, options: GetOptions = {}): Promise<Uint8Array> {
  const { quorum = 16, ...rest } = options
  // Stopped meanwhile, the network has none, or the next one.
  const { signal } = kad
  const validator = validatorFor(kad.validators, key)
  const values: Uint8Array[] = []
  const holders = new Map<string, Uint8Array>()
  const checks: Promise<void>[] = []
  const local = await kad.values.get(key)
  if (local !== undefined) values.push(local.value)
  if (kad.table.size === 0 && local === undefined) throw emptyTable(kad)
  const consider = async (from: PeerId, value: Uint8Array): Promise<void> => {
    try {
      await validator.validate(key, value)
      values.push(value)
      holders.set(from.toString(), value)
    } catch (error) {
      kad.host.env.trace?.('dht.bad-record', { peer: from.toString(), error })
    }
  }
  let outcome: LookupOutcome | undefined
  if (kad.table.size > 0) {
    outcome = await kad.lookup({
      type: 'GET_VALUE',
      key,
      ...rest,
      onAnswer: (from, { record }) => {
        if (record !== undefined && equals(record.key, key)) checks.push(consider(from, record.value))
        return holders.size >= quorum
      },
    })
  }
  await Promise.all(checks)
  const best = values[values.length === 0 ? -1 : validator.select(key, values)]
  if (best === undefined) {
    throw new UnavailableError('not-found', `none of ${outcome?.queries ?? 0} peers of ${kad.protocol} has the record`)
  }
  void correct(kad, key, best, outcome?.closest ?? [], holders, signal)
  return best
}

/** kad-dht §Entry correction: the closest peers get the best value where they have another or none. */
async function correct(
  kad: Kad,
  key: RecordKey,
  best: Uint8Array,
  closest: readonly PeerInfo[],
  holders: ReadonlyMap<string, Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const stale = closest.filter(({ peer }) => {
    const had = holders.get(peer.toString())
    return had === undefined || !equals(had, best)
  })
  await Promise.allSettled(stale.map((to) => kad.network.ask(to, putRequest(key, best), { signal })))
}

function putRequest(key: RecordKey, value: Uint8Array): Message {
  return { type: 'PUT_VALUE', key, record: { key, value }, closerPeers: [], providerPeers: [] }
}

/** Puts a value to the k closest peers and to ourselves; who took it. Rejects with ProtocolError when it is not valid. */
export async function putValue(
  kad: Kad,
  key: RecordKey,
  value: Uint8Array,
  options: RoutingOptions = {},
): Promise<PeerInfo[]> {
  await kad.values.put(key, value)
  const closest = await closestPeers(kad, key, options)
  const request = putRequest(key, value)
  return tellAll(closest, 'the record', (to) => kad.network.ask(to, request, options))
}
