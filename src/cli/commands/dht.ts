/* `rhiza dht`: what the DHT looks like from here. */
import type { QueryEvent } from '../../dht/dht.ts'
import { parseCid } from '../../ipld/cid.ts'
import { PeerId } from '../../peer/id.ts'
import { UsageError, type Command } from '../args.ts'
import { describeEvent, lookingUp, lookupOptions } from '../network.ts'

const stats: Command = {
  name: 'dht stats',
  summary: 'enter the DHT, fill the routing table, and show it',
  usage: '',
  options: lookupOptions,
  arity: [0, 0],
  async run(context) {
    await lookingUp(context, async ({ dht, signal }) => {
      await dht.refresh({ signal })
      for (const network of dht.stats()) {
        const { protocol, peers, buckets } = network
        const lines = buckets.map(
          ({ prefixBits, peers: inside, waiting }) =>
            `  ${prefixBits} bits in common: ${inside} peers, ${waiting} waiting`,
        )
        await context.out.result({ ...network }, [`${protocol}: ${peers} peers`, ...lines].join('\n'))
      }
    })
  },
}

/** A peer id, a CID (its multihash), or `/ipns/` and `/pk/` with a peer id. Throws UsageError. */
function keyOf(text: string): Uint8Array {
  try {
    return PeerId.parse(text).bytes
  } catch {
    // A CID, then.
  }
  try {
    return parseCid(text).multihash.bytes
  } catch {
    throw new UsageError(`${JSON.stringify(text)} is neither a peer id nor a CID`)
  }
}

const query: Command = {
  name: 'dht query',
  summary: 'find the peers closest to a peer id or a CID, and show the path of the lookup as it goes',
  usage: 'PEER|CID',
  more: [
    'With --json each step is a line: {"event":"query"}, "answer", "failed", "done"; then {"event":"closest","peer"}.',
    'The path goes to standard error, the peers to standard output; with --json all goes to standard output.',
  ].join('\n'),
  options: lookupOptions,
  arity: [1, 1],
  async run(context) {
    const { args, out } = context
    const key = keyOf(args[0] ?? '')
    let shown: Promise<void> = Promise.resolve()
    const onEvent = (event: QueryEvent): void => {
      const { record, text } = describeEvent(event)
      if (out.json) shown = shown.then(() => out.result(record, text))
      else out.note(text)
    }
    await lookingUp(context, async ({ dht, signal }) => {
      const closest = await dht.closestPeers(key, { signal, onEvent })
      await shown
      for (const { peer, addrs } of closest)
        await out.result({ event: 'closest', peer: String(peer), addrs: addrs.map(String) }, String(peer))
    })
  },
}

export const dht: readonly Command[] = [stats, query]
