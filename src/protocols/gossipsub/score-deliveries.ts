/*
 * gossipsub v1.1 (r8) §P₃, §P₄: which peers sent which message, for as long as that may change a score. The oldest
 * message goes first, when its time is over or the limits are reached.
 */
export type Verdict = 'valid' | 'invalid' | 'ignored'

export interface Delivery {
  readonly id: string
  verdict: Verdict | 'validating'
  decidedAt: number
  readonly expiresAt: number
  /** Who sent a copy, but for the first during validation. Short: a list is smaller than a set, and as fast. */
  senders: string[]
  /** The one seen next. A map could tell the oldest, too, but only past the places of all that were deleted. */
  next: Delivery | undefined
}

export interface DeliveryLimits {
  seenTtlMs: number
  maxMessages: number
  maxSenders: number
}

export class Deliveries {
  readonly #limits: DeliveryLimits
  readonly #byId = new Map<string, Delivery>()
  #oldest: Delivery | undefined
  #newest: Delivery | undefined
  #senders = 0

  constructor({ seenTtlMs, maxMessages, maxSenders }: DeliveryLimits) {
    this.#limits = { seenTtlMs, maxMessages, maxSenders }
  }

  get messages(): number {
    return this.#byId.size
  }

  /** Over all messages. */
  get senders(): number {
    return this.#senders
  }

  get(id: string, now: number): Delivery | undefined {
    const delivery = this.#byId.get(id)
    return delivery === undefined || now > delivery.expiresAt ? undefined : delivery
  }

  /** What is known of the message, from now on if nothing was. */
  open(id: string, now: number): Delivery {
    const known = this.get(id, now)
    if (known !== undefined) return known
    this.expire(now)
    const expiresAt = now + this.#limits.seenTtlMs
    const delivery: Delivery = { id, verdict: 'validating', decidedAt: 0, expiresAt, senders: [], next: undefined }
    this.#byId.set(id, delivery)
    if (this.#newest === undefined) this.#oldest = delivery
    else this.#newest.next = delivery
    this.#newest = delivery
    this.#trim()
    return delivery
  }

  /** The verdict falls once: undefined the second time. */
  decide(id: string, verdict: Verdict, now: number): Delivery | undefined {
    const delivery = this.open(id, now)
    if (delivery.verdict !== 'validating') return undefined
    delivery.verdict = verdict
    delivery.decidedAt = now
    return delivery
  }

  /** A copy from the peer; false where it sent one before. */
  sent(delivery: Delivery, peer: string): boolean {
    if (delivery.senders.includes(peer)) return false
    delivery.senders.push(peer)
    this.#senders++
    this.#trim()
    return true
  }

  forgetSenders(delivery: Delivery): void {
    this.#senders -= delivery.senders.length
    delivery.senders = []
  }

  expire(now: number): void {
    while (this.#oldest !== undefined && now > this.#oldest.expiresAt) this.#drop(this.#oldest)
  }

  #trim(): void {
    const { maxMessages, maxSenders } = this.#limits
    while (this.#oldest !== undefined && (this.#byId.size > maxMessages || this.#senders > maxSenders))
      this.#drop(this.#oldest)
  }

  #drop(oldest: Delivery): void {
    this.#byId.delete(oldest.id)
    this.forgetSenders(oldest)
    this.#oldest = oldest.next
    if (oldest.next === undefined) this.#newest = undefined
  }
}
