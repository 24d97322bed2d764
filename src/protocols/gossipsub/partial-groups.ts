/*
 * Partial messages (gossipsub partial-messages.md 1A, r0 2025-06-23) as a machine: which groups there are, what the
 * application remembers of each peer, and when it has something to tell. What parts and their metadata look like is the
 * application's.
 */
import { LimitError, ProtocolError, UnavailableError } from '../../errors.ts'
import type { Router } from './router.ts'
import type { RouterEvent } from './state.ts'
import { idKey, type PartialMessages } from './wire.ts'

/** Parts, what we have and want, or both. */
export interface PartialAction {
  message?: Uint8Array | undefined
  metadata?: Uint8Array | undefined
}

/** A whole message that goes round in parts. */
export interface PartialGroup<S> {
  readonly topic: string
  readonly groupId: Uint8Array
  /** By peer id as text: mesh peers and whoever told of the group. The application may change a state in place. */
  readonly states: ReadonlyMap<string, S>
}

export interface PartialOut {
  /** The peer wants parts, not only their metadata. */
  requests(peer: string): boolean
  /** False: the peer is gone or its queue is full, nothing was sent. Parts for who does not request them are left out. */
  send(peer: string, action: PartialAction): boolean
}

/** What an application of partial messages does. Nothing here may take long: the router waits for it. */
export interface PartialApplication<S> {
  /** Of a peer that we have exchanged nothing with about this group. */
  newState(): S
  /** Whether a group that a peer tells of, and that is not held, is worth holding. Default: any is. */
  knows?(topic: string, groupId: Uint8Array): boolean
  /**
   * What a peer sent. `adopt`: some of it is genuine, so that the group is no longer the peer's claim: others hear of it,
   * and it counts among the peer's no more. Throws ProtocolError when it is not what it should be: then it counts like an
   * invalid message.
   */
  received(group: PartialGroup<S>, from: string, action: PartialAction): 'adopt' | undefined
  /** Sends to the group's peers what they should hear now. Called after publishPartial(), received() and gossip. */
  send(group: PartialGroup<S>, out: PartialOut): void
  /** The group is forgotten. */
  expired?(topic: string, groupId: Uint8Array): void
}

export interface PartialLimits {
  /** Groups of a topic, ours included. Default 1,024. */
  maxGroups: number
  /** Of them, those that peers told of and the application did not adopt. Default 255 (go-libp2p-pubsub). */
  maxPeerGroups: number
  /** Of them, those of one peer. Default 8 (go-libp2p-pubsub). */
  maxGroupsPerPeer: number
  /** Heartbeats that a group outlives its last publish, or the peer's first word of it. Default 60. */
  groupTtl: number
  /** Default 256. */
  maxGroupIdBytes: number
  /** Default 16 KiB. */
  maxMetadataBytes: number
  /** A partial message in all, ours and others'. Default 1 MiB - 4 KiB: go-libp2p-pubsub reads no RPC above 1 MiB. */
  maxPartialBytes: number
}

export const partialDefaults: PartialLimits = {
  maxGroups: 1_024,
  maxPeerGroups: 255,
  maxGroupsPerPeer: 8,
  groupTtl: 60,
  maxGroupIdBytes: 256,
  maxMetadataBytes: 16 * 1024,
  maxPartialBytes: 1024 * 1024 - 4096,
}

/** What is asked of the router. */
export type PartialRouter = Pick<Router, 'ownPartial' | 'partialPeers' | 'requestsPartial' | 'sendPartial'>

type PartialEvent = Extract<RouterEvent, { kind: 'partial' | 'partial-gossip' | 'partial-peer-gone' }>

interface Group<S> {
  topic: string
  groupId: Uint8Array
  states: Map<string, S>
  ttl: number
  /** Who told of it, as long as it is nobody else's claim. */
  initiator: string | undefined
}

interface Topic<S> {
  groups: Map<string, Group<S>>
  /** Groups by their initiator; of all of them. */
  initiated: Map<string, number>
  claims: number
}

export class PartialGroups<S> {
  readonly #application: PartialApplication<S>
  readonly #limits: PartialLimits
  readonly #topics = new Map<string, Topic<S>>()
  #router: PartialRouter | undefined
  #changed = (): void => {}
  /** Partial messages that came for topics that we exchange no parts of. */
  unwanted = 0

  constructor(application: PartialApplication<S>, limits: Partial<PartialLimits> = {}) {
    this.#application = application
    this.#limits = { ...partialDefaults }
    for (const name of Object.keys(partialDefaults) as (keyof PartialLimits)[]) {
      const value = limits[name] ?? partialDefaults[name]
      this.#limits[name] = value
      if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${name} of ${value}, want 1 or more`)
    }
  }

  attach(router: PartialRouter, changed: () => void): void {
    if (this.#router !== undefined)
      throw new TypeError('partial messages belong to one GossipSub: make another for this')
    this.#router = router
    this.#changed = changed
  }

  /** Groups of a topic. */
  size(topic: string): number {
    return this.#topics.get(topic)?.groups.size ?? 0
  }

  /**
   * The group is ours from now on, and peers hear of it: the application's send() is called. Throws UnavailableError
   * `not-found` when we are not subscribed to the topic with parts, LimitError when there are too many groups.
   */
  publishPartial(topic: string, groupId: Uint8Array): void {
    if (this.#router?.ownPartial(topic) === undefined) {
      throw new UnavailableError(
        'not-found',
        `no parts of ${topic}: give the GossipSub \`partial\`, and subscribe with requestsPartial or supportsPartial`,
      )
    }
    const { maxGroupIdBytes, maxGroups } = this.#limits
    if (groupId.length > maxGroupIdBytes) throw new LimitError('maxGroupIdBytes', maxGroupIdBytes, groupId.length)
    const groups = this.#topic(topic)
    const group = groups.groups.get(idKey(groupId)) ?? this.#add(groups, topic, groupId, undefined)
    if (group === undefined) throw new LimitError('maxGroups', maxGroups, groups.groups.size + 1)
    this.#adopt(group)
    this.#send(group)
    this.#changed()
  }

  /** Throws ProtocolError when what a peer sent breaks the rules, LimitError when there is no room for it. */
  event(event: PartialEvent): void {
    if (event.kind === 'partial') this.#received(event.peer, event.partial)
    else if (event.kind === 'partial-gossip') this.#gossip(event.topic, event.peers)
    else this.#gone(event.peer)
  }

  #received(from: string, { topic = '', groupId, message, metadata }: PartialMessages): void {
    const own = this.#router?.ownPartial(topic)
    if (own === undefined) {
      this.unwanted++
      return
    }
    const { maxGroupIdBytes, maxMetadataBytes, maxPartialBytes } = this.#limits
    atMost('the id of a group', groupId, maxGroupIdBytes)
    atMost('the metadata of parts', metadata, maxMetadataBytes)
    atMost('a partial message', message, maxPartialBytes)
    // §partialMessage: nobody is to send parts to who did not ask for them; go-libp2p-pubsub means nothing by empty fields.
    const parts = own.requestsPartial && message?.length !== 0 ? message : undefined
    const told = metadata?.length === 0 ? undefined : metadata
    if (groupId === undefined || (parts === undefined && told === undefined)) return

    const groups = this.#topics.get(topic)
    const known = groups?.groups.get(idKey(groupId))
    if (known === undefined && this.#application.knows?.(topic, groupId) === false) return
    const group = known ?? this.#claimed(topic, groupId, from)
    const state = group.states.has(from)
    if (!state) group.states.set(from, this.#application.newState())
    let adopt = false
    try {
      adopt = this.#application.received(group, from, { message: parts, metadata: told }) === 'adopt'
    } catch (error) {
      // What was not understood leaves nothing behind.
      if (known === undefined) this.#delete(group)
      else if (!state) group.states.delete(from)
      throw error
    }
    if (adopt) this.#adopt(group)
    this.#send(group)
  }

  #topic(topic: string): Topic<S> {
    let groups = this.#topics.get(topic)
    if (groups === undefined) this.#topics.set(topic, (groups = { groups: new Map(), initiated: new Map(), claims: 0 }))
    return groups
  }

  #add(groups: Topic<S>, topic: string, groupId: Uint8Array, initiator: string | undefined): Group<S> | undefined {
    const { maxGroups, groupTtl } = this.#limits
    if (groups.groups.size >= maxGroups) return undefined
    const group = { topic, groupId: groupId.slice(), states: new Map<string, S>(), ttl: groupTtl, initiator }
    groups.groups.set(idKey(groupId), group)
    return group
  }

  /** §DoS Resiliency: what peers may make us hold is little. */
  #claimed(topic: string, groupId: Uint8Array, from: string): Group<S> {
    const { maxPeerGroups, maxGroupsPerPeer, maxGroups } = this.#limits
    const groups = this.#topic(topic)
    const count = groups.initiated.get(from) ?? 0
    if (count >= maxGroupsPerPeer) throw new LimitError('maxGroupsPerPeer', maxGroupsPerPeer, count + 1)
    if (groups.claims >= maxPeerGroups) throw new LimitError('maxPeerGroups', maxPeerGroups, groups.claims + 1)
    const group = this.#add(groups, topic, groupId, from)
    if (group === undefined) throw new LimitError('maxGroups', maxGroups, groups.groups.size + 1)
    groups.initiated.set(from, count + 1)
    groups.claims++
    return group
  }

  #adopt(group: Group<S>): void {
    this.#disclaim(group)
    group.ttl = this.#limits.groupTtl
    this.#meet(group)
  }

  /** Mesh peers that are new to the group. True: there are such. */
  #meet({ topic, states }: Group<S>): boolean {
    const before = states.size
    for (const peer of this.#router?.partialPeers(topic) ?? []) {
      if (!states.has(peer)) states.set(peer, this.#application.newState())
    }
    return states.size > before
  }

  #disclaim(group: Group<S>): void {
    const { topic, initiator } = group
    const groups = this.#topics.get(topic)
    if (initiator === undefined || groups === undefined) return
    group.initiator = undefined
    groups.claims--
    const count = (groups.initiated.get(initiator) ?? 1) - 1
    if (count > 0) groups.initiated.set(initiator, count)
    else groups.initiated.delete(initiator)
  }

  #delete(group: Group<S>): void {
    this.#disclaim(group)
    const groups = this.#topics.get(group.topic)
    groups?.groups.delete(idKey(group.groupId))
    if (groups?.groups.size === 0) this.#topics.delete(group.topic)
    this.#application.expired?.(group.topic, group.groupId)
  }

  #send(group: Group<S>): void {
    const router = this.#router
    if (router === undefined) return
    const { topic, groupId } = group
    const { maxPartialBytes, maxMetadataBytes } = this.#limits
    this.#application.send(group, {
      requests: (peer) => router.requestsPartial(peer, topic),
      send: (peer, { message, metadata }) => {
        const size = (message?.length ?? 0) + (metadata?.length ?? 0)
        if (size > maxPartialBytes) throw new LimitError('maxPartialBytes', maxPartialBytes, size)
        if ((metadata?.length ?? 0) > maxMetadataBytes) {
          throw new LimitError('maxMetadataBytes', maxMetadataBytes, metadata?.length ?? 0)
        }
        // §Changes to SubOpts: MUST NOT send parts to who did not request them.
        const parts = router.requestsPartial(peer, topic) ? message : undefined
        if (parts === undefined && metadata === undefined) return true
        return router.sendPartial(peer, { topic, groupId, message: parts, metadata })
      },
    })
  }

  /** §Partial Message Gossip: metadata instead of IHAVE. */
  #gossip(topic: string, peers: readonly string[]): void {
    for (const group of this.#topics.get(topic)?.groups.values() ?? []) {
      if (group.initiator !== undefined) continue
      const before = group.states.size
      for (const peer of peers) if (!group.states.has(peer)) group.states.set(peer, this.#application.newState())
      if (group.states.size > before) this.#send(group)
    }
  }

  #gone(peer: string): void {
    for (const { groups } of this.#topics.values()) {
      for (const group of groups.values()) {
        group.states.delete(peer)
        if (group.initiator === peer && group.states.size === 0) this.#delete(group)
      }
    }
  }

  heartbeat(): void {
    for (const [topic, { groups }] of this.#topics) {
      const own = this.#router?.ownPartial(topic)
      for (const group of groups.values()) {
        if (own === undefined || --group.ttl <= 0) this.#delete(group)
        // Who came into the mesh since then hears no gossip.
        else if (group.initiator === undefined && this.#meet(group)) this.#send(group)
      }
    }
  }
}

function atMost(what: string, bytes: Uint8Array | undefined, max: number): void {
  if (bytes !== undefined && bytes.length > max) {
    throw new ProtocolError('oversized', `${what} of ${bytes.length} bytes, at most ${max} allowed`)
  }
}
