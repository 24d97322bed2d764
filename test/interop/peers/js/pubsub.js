import { createHash } from 'node:crypto'
import { gossipsub, StrictNoSign, StrictSign, TopicValidatorResult } from '@libp2p/gossipsub'
import { counted, stormTopics } from './storm.js'

const policies = { strict: StrictSign, none: StrictNoSign }
const floodsub = '/floodsub/1.0.0'
// The library speaks no 1.3.0.
const meshsub = ['1.2.0', '1.1.0', '1.0.0']

function offered(kind, version) {
  if (kind === 'flood' || version === 'floodsub') return [floodsub]
  if (kind !== 'gossip') throw new Error(`no such pubsub: ${kind}`)
  if (version === '1.3.0') return offered(kind, '1.2.0')
  const from = meshsub.indexOf(version)
  if (from === -1) throw new Error(`no such pubsub version: ${version}`)
  return [...meshsub.slice(from).map((v) => `/meshsub/${v}`), floodsub]
}

/** The id that the specification and go have: author and number, as bytes. The library's own has the author's key. */
function specId(message) {
  if (message.type !== 'signed') return createHash('sha256').update(message.data).digest()
  const seqno = Buffer.alloc(8)
  seqno.writeBigUInt64BE(message.sequenceNumber)
  return Buffer.concat([message.from.toMultihash().bytes, seqno])
}

/** The service of js-libp2p. Its option for protocols has no effect, so they are set before it starts. */
export function pubsubService(flags) {
  const globalSignaturePolicy = policies[flags['pubsub-sign']]
  if (globalSignaturePolicy === undefined) throw new Error(`no such signature policy: ${flags['pubsub-sign']}`)
  const protocols = offered(flags.pubsub, flags['pubsub-version'])
  const make = gossipsub({
    ...(flags['pubsub-ids'] === 'own' ? {} : { msgIdFn: specId }),
    globalSignaturePolicy,
    heartbeatInterval: Number(flags['pubsub-heartbeat-ms']),
    idontwantMinDataSize: Number(flags['pubsub-idontwant-bytes']),
    allowPublishToZeroTopicPeers: true,
    floodPublish: false,
    msgIdToStrFn: (id) => Buffer.from(id).toString('hex'),
  })
  return (components) => {
    const service = make(components)
    service.protocols = protocols
    return service
  }
}

function validate(_peer, { data }) {
  const text = Buffer.from(data.subarray(0, 7)).toString()
  if (text === 'reject:') return TopicValidatorResult.Reject
  return text === 'ignore:' ? TopicValidatorResult.Ignore : TopicValidatorResult.Accept
}

export function pubsubCommands(node, emit) {
  const { pubsub } = node.services
  pubsub.addEventListener('gossipsub:message', ({ detail: { propagationSource, msgId, msg } }) => {
    if (msg.topic.startsWith(stormTopics)) {
      counted(msg.data)
      return
    }
    const signed = msg.type === 'signed'
    emit('message', {
      topic: msg.topic,
      from: signed ? String(msg.from) : null,
      seqno: signed ? msg.sequenceNumber.toString(16).padStart(16, '0') : null,
      data: Buffer.from(msg.data).toString('base64'),
      id: msgId,
      receivedFrom: String(propagationSource),
    })
  })

  return {
    sub: async ({ topic }) => {
      pubsub.topicValidators.set(topic, validate)
      pubsub.subscribe(topic)
    },
    unsub: async ({ topic }) => {
      if (!pubsub.getTopics().includes(topic)) throw new Error(`not subscribed to ${topic}`)
      pubsub.unsubscribe(topic)
    },
    pub: async ({ topic, data }) => {
      await pubsub.publish(topic, Buffer.from(data, 'base64'))
    },
    topicPeers: async ({ topic }) => ({ peers: pubsub.getSubscribers(topic).map(String).toSorted() }),
    mesh: async ({ topic }) => ({ peers: pubsub.getMeshPeers(topic).toSorted() }),
    topics: async () => ({ topics: pubsub.getTopics().toSorted() }),
    score: async ({ peer }) => ({ score: pubsub.getScore(peer) }),
  }
}
