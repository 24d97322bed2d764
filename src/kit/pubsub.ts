/* GossipSub for a kit, and what goes over topics where that is asked for: IPNS records, peers, who has what. */
import type { Discovery } from '../discovery/discovery.ts'
import type { PubsubDiscoveryOptions } from '../discovery/pubsub.ts'
import type { PubsubRouting, PubsubRoutingOptions } from '../ipns/ipns-pubsub.ts'
import type { Node } from '../node.ts'
import type { PrivateKey } from '../peer/keys.ts'
import type { FetchService } from '../protocols/fetch/fetch.ts'
import { createGossipsub, type Gossipsub, type GossipsubOptions } from '../protocols/gossipsub/gossipsub.ts'
import type { ContentTopic, ContentTopicOptions } from './pubsub-content.ts'

export interface PubsubNamesOptions extends Partial<
  Pick<PubsubRoutingOptions, 'maxNames' | 'waitMs' | 'settleMs' | 'rebroadcastMs' | 'maxFetches'>
> {
  /** Where the node serves /libp2p/fetch already: serveFetch() of rhiza/fetch. */
  service?: FetchService
}

/** The node's key signs, and its address book has the records of peer exchange: neither must be given. */
export interface PubsubOptions extends GossipsubOptions {
  /** IPNS names are published and resolved over topics, too, and /libp2p/fetch is served. Default false. */
  names?: boolean | PubsubNamesOptions
  /** Peers are found over a topic, and find us. Default false. */
  discovery?: boolean | Omit<PubsubDiscoveryOptions, 'publicKey'>
  /** We hear over a topic who has what, and can tell. Default false. */
  announcements?: boolean | ContentTopicOptions
}

export interface KitPubsub {
  readonly gossipsub: Gossipsub
  readonly names: PubsubRouting | undefined
  readonly discovery: Discovery | undefined
  readonly announcements: ContentTopic | undefined
  /** Once the node is started: direct peers are dialled. */
  start(): void
  stop(): Promise<void>
}

async function namesOf(node: Node, gossipsub: Gossipsub, given: PubsubNamesOptions): Promise<PubsubRouting> {
  const [{ fetch, serveFetch }, { pubsubRouting }] = await Promise.all([
    import('../protocols/fetch/fetch.ts'),
    import('../ipns/ipns-pubsub.ts'),
  ])
  const { service = serveFetch(node), ...options } = given
  return pubsubRouting({
    ...options,
    pubsub: gossipsub,
    host: node,
    fetch: {
      get: (peer, key, bound) => fetch(node, peer, key, bound),
      serve: (prefix, lookup) => service.register(prefix, lookup),
    },
  })
}

/** `true` stands for no options. */
const optionsOf = <T extends object>(given: boolean | T | undefined): T | undefined =>
  given === true ? ({} as T) : given === false ? undefined : given

/** Rejects with TypeError or RangeError on bad options. */
export async function createPubsub(
  node: Node,
  privateKey: PrivateKey,
  { names, discovery, announcements, ...options }: PubsubOptions,
): Promise<KitPubsub> {
  const gossipsub = createGossipsub(node, { privateKey, recordOf: (peer) => node.book.record(peer), ...options })
  const [namesOptions, finding, telling] = [optionsOf(names), optionsOf(discovery), optionsOf(announcements)]
  const routing = namesOptions && (await namesOf(node, gossipsub, namesOptions))
  const { publicKey } = privateKey
  const source =
    finding && (await import('../discovery/pubsub.ts')).pubsubDiscovery(gossipsub, { ...finding, publicKey })
  const content = telling && (await import('./pubsub-content.ts')).createContentTopic(gossipsub, node, telling)
  return {
    gossipsub,
    names: routing,
    discovery: source,
    announcements: content,
    start() {
      gossipsub.start()
      routing?.start()
      content?.start()
    },
    async stop() {
      content?.stop()
      await routing?.stop()
      await gossipsub.stop()
    },
  }
}
