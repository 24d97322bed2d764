import { createHash } from 'node:crypto'
import { createNode } from 'rhiza'
import { createGossipsub } from 'rhiza/gossipsub'
import { partialParts, type PartsOptions } from 'rhiza/gossipsub/partial'
import { generateKey } from 'rhiza/peer'

// The id of a group has 16 bytes of the hash of each part, so that everybody can tell a part from a forgery.
const hash = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest().subarray(0, 16)
const verify: PartsOptions['verify'] = ({ groupId, index, bytes }) =>
  hash(bytes).equals(groupId.subarray(16 * index, 16 * (index + 1)))

const stops: (() => Promise<void>)[] = []
async function start(complete: PartsOptions['complete'], dial: readonly string[] = []) {
  const privateKey = generateKey()
  const node = await createNode({ privateKey, listen: ['/ip4/127.0.0.1/tcp/0'] })
  const parts = partialParts({ partCount: 4, partBytes: 1_000, verify, ...(complete && { complete }) })
  const pubsub = createGossipsub(node, { privateKey, partial: parts })
  // What comes whole all the same, from peers that know no parts.
  pubsub.subscribe('columns', () => {}, { requestsPartial: true })
  await node.start()
  pubsub.start()
  if (dial.length > 0) await node.dial(dial)
  stops.push(
    () => pubsub.stop(),
    () => node.stop(),
  )
  return { parts, addrs: node.addrs().map(String) }
}

const whole = [1, 2, 3, 4].map((number) => new Uint8Array(1_000).fill(number))
const groupId = Buffer.concat(whole.map(hash))
const done = Promise.withResolvers<number>()

const ana = await start(undefined)
const ben = await start(({ parts }) => done.resolve(parts.length), ana.addrs)
ana.parts.publish('columns', groupId, whole)
// Ben has one part from elsewhere: it is not sent to him.
ben.parts.publish('columns', groupId, [undefined, whole[1]])
console.log(`${await done.promise} parts`)
for (const stop of stops) await stop()
