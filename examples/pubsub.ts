import { createKit } from 'rhiza'

const ana = await createKit({ pubsub: true, listen: ['/ip4/127.0.0.1/tcp/0'] })
const ben = await createKit({ pubsub: true })
await ana.start()
await ben.start()
await ben.node.dial(ana.node.addrs())

const heard = Promise.withResolvers<string>()
ana.subscribeToTopic('greetings', ({ data, from }) => {
  heard.resolve(`${new TextDecoder().decode(data)}, says ${from?.equals(ben.node.peerId) ? 'Ben' : from}`)
})
// Waits until Ana is in the topic and has taken it; without `taken` it throws where nobody is.
const { recipients } = await ben.publishToTopic('greetings', 'hello', { taken: true })
console.log(await heard.promise, recipients.length)
await ben.stop()
await ana.stop()
