/*
 * Peer exchange (gossipsub v1.1 §Prune Backoff and Peer Exchange): connects to peers that another peer has named. Whoever
 * names a peer may not say where it is: only addresses that it signed itself count, or those we find ourselves.
 */
import { UnavailableError, asError } from '../../errors.ts'
import type { Host } from '../../host.ts'
import { openPeerRecord } from '../../peer/envelope.ts'
import { PeerId } from '../../peer/id.ts'
import type { PrunedPeer } from './wire.ts'

export class Exchange {
  readonly #host: Host
  readonly #maxDials: number
  #dialing = 0

  constructor(host: Host, maxDials: number) {
    this.#host = host
    this.#maxDials = maxDials
  }

  /** Those beyond the dials that are allowed at a time are left out. */
  meet(peers: readonly PrunedPeer[], signal: AbortSignal | undefined): void {
    if (signal === undefined) return
    for (const peer of peers) {
      if (this.#dialing >= this.#maxDials) return
      this.#dialing++
      void this.#dial(peer, signal).finally(() => this.#dialing--)
    }
  }

  async #dial({ id, record: sealed }: PrunedPeer, signal: AbortSignal): Promise<void> {
    try {
      const peer = PeerId.decode(id)
      if (peer.equals(this.#host.peerId) || this.#host.connections(peer).length > 0) return
      if (sealed === undefined) {
        await this.#host.dial(peer, { signal })
        return
      }
      const record = await openPeerRecord(sealed)
      if (!record.peerId.equals(peer)) throw new UnavailableError('refused', `the record is that of ${record.peerId}`)
      await this.#host.dial(
        record.addrs.map((addr) => addr.withPeer(peer)),
        { signal },
      )
    } catch (error) {
      this.#host.env.trace?.('gossipsub.exchange-failed', { error: asError(error) })
    }
  }
}
