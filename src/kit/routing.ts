/*
 * How a kit finds peers and content: the DHT, and whatever finds peers at all. Each part is fetched only where it is
 * asked for.
 */
import { sleep } from '../deadline.ts'
import type { Dht, DhtMode, DhtOptions, PeerInfo } from '../dht/dht.ts'
import { asError } from '../errors.ts'
import type { Discoverer, Discovery, DiscoveryOptions } from '../discovery/discovery.ts'
import type { MdnsOptions } from '../discovery/mdns/mdns.ts'
import type { CID } from '../ipld/cid.ts'
import type { Node } from '../node.ts'
import type { RecordStore } from '../store/records.ts'

/** Who has what: a Dht is one. */
export interface ContentRouting {
  findProviders(cid: CID, options: { signal?: AbortSignal; count?: number }): AsyncIterable<PeerInfo>
}

export interface RoutingOptions {
  /** The DHT: its mode, or more about it. Default false: none. */
  dht?: DhtMode | DhtOptions | false | undefined
  /** Peers to connect to while few are connected; `default` names those of the public IPFS network. */
  bootstrap?: readonly string[] | undefined
  /** Finds peers on the same network, and is found by them (Node only). Default false. */
  mdns?: boolean | MdnsOptions | undefined
  /** Other ways to find peers. */
  discovery?: readonly Discovery[] | undefined
  /** Others who know who has what, asked before the DHT; one that fails is left out. */
  content?: readonly ContentRouting[] | undefined
  /** How peers that are found are dialled. */
  discovering?: DiscoveryOptions | undefined
}

/** How long a search waits for the first peer of the DHT, or for any peer where there is no DHT. */
const firstPeerMs = 15_000
const newcomersMs = 5_000
const lookEveryMs = 50
/** Providers of one block that are worth a dial. */
const providersWanted = 10

export interface Routing {
  readonly dht: Dht | undefined
  readonly discovery: Discoverer | undefined
  start(): Promise<void>
  stop(): Promise<void>
  /** Waits for the first peer of the DHT; false where none comes. */
  ready(signal: AbortSignal): Promise<boolean>
  /** Who may have the block; waits a moment for peers where there are none yet. */
  providers(cid: CID, signal: AbortSignal): AsyncIterable<PeerInfo>
}

async function sourcesOf(
  { bootstrap, mdns, discovery = [] }: RoutingOptions,
  dht: Dht | undefined,
): Promise<Discovery[]> {
  const parts = await import('../discovery/discovery.ts')
  const sources = [...discovery]
  const listed = (bootstrap ?? []).flatMap((addr) => (addr === 'default' ? parts.aminoBootstrap : [addr]))
  if (listed.length > 0) sources.push(parts.bootstrap(listed))
  if (mdns !== undefined && mdns !== false) {
    const platform = await import('#mdns')
    sources.push(platform.mdns(mdns === true ? {} : mdns))
  }
  if (dht !== undefined) sources.push(parts.randomWalk(dht))
  return sources
}

async function dhtOf(node: Node, dht: DhtMode | DhtOptions, records: RecordStore | undefined): Promise<Dht> {
  const [{ createDht }, { ipnsValidator }] = await Promise.all([
    import('../dht/dht.ts'),
    import('../ipns/validator.ts'),
  ])
  const given = typeof dht === 'string' ? { mode: dht } : dht
  const validators = { ipns: ipnsValidator(node.env), ...given.validators }
  return createDht(node, { ...(records && { records }), ...given, validators })
}

/** Undefined where nothing is asked for. Rejects with TypeError on bad options, with UnavailableError for no mDNS here. */
export async function createRouting(
  node: Node,
  options: RoutingOptions,
  records: RecordStore | undefined,
): Promise<Routing | undefined> {
  const { dht: wanted = false, bootstrap = [], mdns = false, discovery: own = [], content = [] } = options
  const lists = [bootstrap, own, content]
  if (wanted === false && mdns === false && lists.every(({ length }) => length === 0)) return undefined
  const dht = wanted === false ? undefined : await dhtOf(node, wanted, records)
  const sources = await sourcesOf(options, dht)
  const { createDiscovery } = await import('../discovery/discovery.ts')
  const discovery = createDiscovery(node, sources, options.discovering)
  /** A walk alone needs a peer to begin with. */
  const finds = sources.length > (dht === undefined ? 0 : 1)
  let startedAt = -Infinity

  async function until(done: () => boolean, deadlineMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = node.env
    while (!done() && clock.now() < deadlineMs && (finds || node.connections().length > 0)) {
      await sleep(node.env, lookEveryMs, signal)
    }
  }

  const known = (): boolean => dht?.networks.some(({ table }) => table.size > 0) === true

  async function ready(signal: AbortSignal): Promise<boolean> {
    await until(known, node.env.clock.now() + firstPeerMs, signal)
    return known()
  }

  return {
    dht,
    discovery,
    ready,
    async start() {
      startedAt = node.env.clock.now()
      await dht?.start()
      discovery.start()
    },
    async stop() {
      await discovery.stop()
      await dht?.stop()
    },
    async *providers(cid, signal) {
      for (const one of content) {
        try {
          yield* one.findProviders(cid, { signal, count: providersWanted })
        } catch (error) {
          if (signal.aborted) return
          node.env.trace?.('kit.search-failed', { cid: cid.toString(), error: asError(error) })
        }
      }
      if (dht === undefined) {
        // Those that come within the first seconds are asked as they come.
        await until(() => false, startedAt + newcomersMs, signal)
        return
      }
      await ready(signal)
      yield* dht.findProviders(cid, { signal, count: providersWanted })
    },
  }
}
