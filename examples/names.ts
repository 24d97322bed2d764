import { createKit } from 'rhiza'
import { createNames, formatName } from 'rhiza/ipns'
import { generateKey } from 'rhiza/peer'
import { memoryRecords } from 'rhiza/records'

const pubsub = { names: true }
const ana = await createKit({ pubsub, listen: ['/ip4/127.0.0.1/tcp/0'] })
const ben = await createKit({ pubsub })
await ana.start()
await ben.start()
await ben.node.dial(ana.node.addrs())

// With a DHT, too, names travel both ways, and the newest record counts.
const namesOf = ({ nameRouting: routing, node: { env } }: typeof ana) => {
  if (routing === undefined) throw new Error('neither a DHT nor pubsub.names')
  return createNames({ routing, records: memoryRecords({ env }), env })
}
const key = generateKey()
const name = formatName(key.publicKey.peerId)
const { cid } = await ana.add('first edition')
await namesOf(ana).publish(key, `/ipfs/${cid}`)
const { path } = await namesOf(ben).resolve(name)
console.log(path === `/ipfs/${cid}`)
await ben.stop()
await ana.stop()
