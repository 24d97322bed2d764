/*
 * Partial messages (gossipsub partial-messages.md 1A): an application that is ready to use, of groups with so many parts
 * of one size, and what it takes to write another.
 */
import { concat, equals } from '../../bytes.ts'
import { LimitError, ProtocolError } from '../../errors.ts'
import type { PartialExtension } from './api.ts'
import {
  PartialGroups,
  partialDefaults,
  type PartialAction,
  type PartialApplication,
  type PartialGroup,
  type PartialLimits,
  type PartialOut,
} from './partial-groups.ts'
import { idKey } from './wire.ts'

export { PartialGroups, partialDefaults } from './partial-groups.ts'
export type {
  PartialAction,
  PartialApplication,
  PartialGroup,
  PartialLimits,
  PartialOut,
  PartialRouter,
} from './partial-groups.ts'

export interface Part {
  topic: string
  groupId: Uint8Array
  /** From 0. */
  index: number
  bytes: Uint8Array
}

export interface WholeGroup {
  topic: string
  groupId: Uint8Array
  /** All of them, in order. */
  parts: Uint8Array[]
  /** Peer id, as text, of who sent the last one. */
  from: string
}

export interface PartsOptions extends Partial<PartialLimits> {
  /** Parts of a group; at most 4,096. */
  partCount: number
  /** Bytes of each. */
  partBytes: number
  /**
   * Whether a part is what its group wants: that its hash stands in the group's id, say. What it lets pass is kept, sent on
   * and given to `complete`; who sent what it refuses is scored as for an invalid message. Must be quick.
   */
  verify: (part: Part) => boolean
  /** The last part of a group came from a peer: called once. The bytes are ours, not to be changed. */
  complete?: (group: WholeGroup) => void
  /** Bytes of parts kept in all. Default 64 MiB. */
  maxHeldBytes?: number
  /** Complete groups that are remembered when they are gone, so that nobody sends them again. Default 4,096. */
  maxComplete?: number
}

const defaults = { maxHeldBytes: 64 * 1024 * 1024, maxComplete: 4_096 }

/** Of one peer and group: bitmaps, bit i from the lowest for part i. */
interface PeerParts {
  has: Uint8Array
  /** It said so itself. */
  said: boolean
  /** What we last told it of ours. */
  told: Uint8Array | undefined
}

interface Held {
  have: Uint8Array
  parts: (Uint8Array | undefined)[]
  count: number
  eager: boolean
}

/**
 * Give it to createGossipsub() as `partial`. Parts metadata is a bitmap of what is held; a partial message is a bitmap
 * of the parts that follow, and then these from the lowest. A group that a peer tells of is asked for; whoever lacks
 * parts that we hold gets them once it said what it has.
 */
export class PartialParts implements PartialExtension {
  readonly #options: typeof defaults & PartsOptions
  readonly #groups: PartialGroups<PeerParts>
  readonly #bitmapBytes: number
  readonly #held = new Map<string, Held>()
  #heldBytes = 0
  readonly #done = new Set<string>()
  #completed: WholeGroup[] = []

  constructor(options: PartsOptions) {
    const { partCount, partBytes } = options
    if (!(Number.isSafeInteger(partCount) && partCount >= 1 && partCount <= 4_096)) {
      throw new RangeError(`partCount of ${partCount}, want 1 to 4,096`)
    }
    if (!(Number.isSafeInteger(partBytes) && partBytes >= 1)) {
      throw new RangeError(`partBytes of ${partBytes}, want 1 or more`)
    }
    this.#bitmapBytes = Math.ceil(partCount / 8)
    const { maxPartialBytes } = { ...partialDefaults, ...options }
    if (2 * this.#bitmapBytes + partCount * partBytes > maxPartialBytes) {
      throw new RangeError(
        `${partCount} parts of ${partBytes} bytes do not fit into maxPartialBytes, ${maxPartialBytes}`,
      )
    }
    this.#options = { ...defaults, ...options }
    const application: PartialApplication<PeerParts> = {
      newState: () => ({ has: new Uint8Array(this.#bitmapBytes), said: false, told: undefined }),
      knows: (topic, groupId) => !this.#done.has(keyOf(topic, groupId)),
      received: (...what) => this.#received(...what),
      send: (...what) => this.#send(...what),
      expired: (topic, groupId) => this.#expired(topic, groupId),
    }
    this.#groups = new PartialGroups(application, options)
  }

  attach(...what: Parameters<PartialGroups<PeerParts>['attach']>): void {
    this.#groups.attach(...what)
  }

  event(...what: Parameters<PartialExtension['event']>): void {
    try {
      this.#groups.event(...what)
    } finally {
      for (const group of this.#completed.splice(0)) this.#options.complete?.(group)
    }
  }

  heartbeat(): void {
    this.#groups.heartbeat()
  }

  /**
   * Holds these parts, by their place, with those held before, and tells the topic's peers. `eager` sends them to peers
   * that request parts even before they said what they have. Throws RangeError on parts of another form, LimitError where
   * there is no room, UnavailableError `not-found` when we are not subscribed with parts.
   */
  publish(
    topic: string,
    groupId: Uint8Array,
    parts: readonly (Uint8Array | undefined)[],
    { eager = false }: { eager?: boolean } = {},
  ): void {
    const { partCount, partBytes } = this.#options
    if (parts.length > partCount) throw new RangeError(`${parts.length} parts, want at most ${partCount}`)
    for (const part of parts) {
      if (part !== undefined && part.length !== partBytes) {
        throw new RangeError(`a part of ${part.length} bytes, want ${partBytes}`)
      }
    }
    const key = keyOf(topic, groupId)
    const before = this.#held.get(key)
    const held = before ?? this.#hold(key)
    try {
      for (const [i, part] of parts.entries()) if (part !== undefined) this.#keep(held, i, part)
      held.eager = eager
      this.#groups.publishPartial(topic, groupId)
    } catch (error) {
      if (before === undefined) this.#forget(key)
      throw error
    } finally {
      held.eager = false
    }
  }

  /** Parts that are held, by their place; undefined: nothing is known of the group (any more). */
  get(topic: string, groupId: Uint8Array): (Uint8Array | undefined)[] | undefined {
    const held = this.#held.get(keyOf(topic, groupId))
    return held && [...held.parts]
  }

  /** Groups of a topic that are held. */
  size(topic: string): number {
    return this.#groups.size(topic)
  }

  #hold(key: string): Held {
    const { partCount } = this.#options
    const parts = Array.from({ length: partCount }, (): Uint8Array | undefined => undefined)
    const held = { have: new Uint8Array(this.#bitmapBytes), parts, count: 0, eager: false }
    this.#held.set(key, held)
    return held
  }

  /** False: it is here already. */
  #keep(held: Held, index: number, bytes: Uint8Array): boolean {
    if (has(held.have, index)) return false
    const { maxHeldBytes } = this.#options
    const all = this.#heldBytes + bytes.length
    if (all > maxHeldBytes) throw new LimitError('maxHeldBytes', maxHeldBytes, all)
    this.#heldBytes = all
    held.parts[index] = bytes.slice()
    held.count++
    add(held.have, index)
    return true
  }

  #forget(key: string): void {
    const held = this.#held.get(key)
    if (held === undefined) return
    this.#held.delete(key)
    this.#heldBytes -= held.count * this.#options.partBytes
  }

  #expired(topic: string, groupId: Uint8Array): void {
    const key = keyOf(topic, groupId)
    if (this.#held.get(key)?.count === this.#options.partCount) {
      this.#done.add(key)
      if (this.#done.size > this.#options.maxComplete) {
        for (const oldest of this.#done) {
          this.#done.delete(oldest)
          break
        }
      }
    }
    this.#forget(key)
  }

  #received(group: PartialGroup<PeerParts>, from: string, { message, metadata }: PartialAction): 'adopt' | undefined {
    const { topic, groupId } = group
    const state = group.states.get(from)
    if (state === undefined) return undefined
    const told = metadata && this.#bitmap(metadata, metadata.length)
    const parts = message === undefined ? new Map<number, Uint8Array>() : this.#decode(message)
    const key = keyOf(topic, groupId)
    const known = this.#held.get(key)
    const { partCount, verify, complete } = this.#options
    // All or nothing: who sends one bad part is not to be believed in the others.
    for (const [index, bytes] of parts) {
      if (known !== undefined && has(known.have, index)) continue
      if (!verify({ topic, groupId, index, bytes })) {
        throw new ProtocolError('bad-message', `part ${index} is not one of its group`)
      }
    }
    const held = known ?? this.#hold(key)
    if (told !== undefined) {
      merge(state.has, told)
      state.said = true
    }
    let fresh = 0
    for (const [index, bytes] of parts) {
      add(state.has, index)
      if (this.#keep(held, index, bytes)) fresh++
      // It knows that we have what it sent.
      if (state.told !== undefined) add(state.told, index)
    }
    if (fresh === 0) return undefined
    if (held.count === partCount && complete !== undefined) {
      this.#completed.push({ topic, groupId: groupId.slice(), parts: held.parts as Uint8Array[], from })
    }
    return 'adopt'
  }

  /** The first bytes, of at most so many. */
  #bitmap(bytes: Uint8Array, size: number): Uint8Array {
    const { partCount } = this.#options
    const bitmap = bytes.subarray(0, size)
    if (bitmap.length !== this.#bitmapBytes) {
      throw new ProtocolError('bad-message', `a bitmap of ${bitmap.length} bytes, want ${this.#bitmapBytes}`)
    }
    for (let i = partCount; i < 8 * this.#bitmapBytes; i++) {
      if (has(bitmap, i)) throw new ProtocolError('bad-message', `a bitmap with part ${i}, there are ${partCount}`)
    }
    return bitmap
  }

  #decode(message: Uint8Array): Map<number, Uint8Array> {
    const { partCount, partBytes } = this.#options
    const bitmap = this.#bitmap(message, this.#bitmapBytes)
    const parts = new Map<number, Uint8Array>()
    let at = this.#bitmapBytes
    for (let i = 0; i < partCount; i++) {
      if (!has(bitmap, i)) continue
      parts.set(i, message.subarray(at, at + partBytes))
      at += partBytes
    }
    if (at !== message.length) {
      throw new ProtocolError('bad-message', `${parts.size} parts in ${message.length} bytes, want ${at}`)
    }
    return parts
  }

  #send(group: PartialGroup<PeerParts>, out: PartialOut): void {
    const held = this.#held.get(keyOf(group.topic, group.groupId))
    if (held === undefined) return
    for (const [peer, state] of group.states) {
      const lacks = held.have.map((byte, i) => byte & ~(state.has[i] as number))
      let message: Uint8Array | undefined
      if ((state.said || held.eager) && lacks.some((byte) => byte !== 0) && out.requests(peer)) {
        message = this.#encode(held, lacks)
      }
      const news = state.told === undefined || !equals(state.told, held.have)
      if (message === undefined && !news) continue
      if (!out.send(peer, { message, metadata: news ? held.have.slice() : undefined })) continue
      if (message !== undefined) merge(state.has, lacks)
      if (news) state.told = held.have.slice()
    }
  }

  #encode({ parts }: Held, bitmap: Uint8Array): Uint8Array {
    return concat([bitmap, ...parts.filter((part, i) => part !== undefined && has(bitmap, i))] as Uint8Array[])
  }
}

const keyOf = (topic: string, groupId: Uint8Array): string => `${topic}\0${idKey(groupId)}`

const has = (bitmap: Uint8Array, i: number): boolean => (((bitmap[i >> 3] as number) >> (i & 7)) & 1) === 1

function add(bitmap: Uint8Array, i: number): void {
  bitmap[i >> 3] = (bitmap[i >> 3] as number) | (1 << (i & 7))
}

function merge(bitmap: Uint8Array, other: Uint8Array): void {
  for (const [i, byte] of other.entries()) bitmap[i] = (bitmap[i] as number) | byte
}

/** For createGossipsub(): `partial: partialParts({...})`. Throws RangeError on options that do not fit together. */
export function partialParts(options: PartsOptions): PartialParts {
  return new PartialParts(options)
}
