/*
 * The five methods over topics as ipfs_kit_py names them: what they did comes back as one plain object. What went wrong
 * is thrown, with a code, where ipfs_kit_py says `success: false`.
 */
import { toHex } from '../bytes.ts'
import { UnavailableError } from '../errors.ts'
import type { PeerId } from '../peer/id.ts'
import type { Gossipsub, MessageHandler, PublishOptions } from '../protocols/gossipsub/gossipsub.ts'

interface Done<Operation extends string> {
  success: true
  operation: Operation
  /** Unix milliseconds. */
  timestamp: number
}

export interface PublishedToTopic extends Done<'publishToTopic'> {
  topic: string
  /** In hex. */
  messageId: string
  /** To whom it was sent; they send it on. */
  recipients: PeerId[]
}

export interface SubscribedToTopic extends Done<'subscribeToTopic'> {
  topic: string
}

export interface UnsubscribedFromTopic extends Done<'unsubscribeFromTopic'> {
  topic: string
  /** One handler, rather than all of them. */
  handlerRemoved: boolean
  /** Nobody listens any more: our peers hear that we left. */
  left: boolean
}

export interface TopicPeers extends Done<'getTopicPeers'> {
  topic: string
  /** Connected peers that are in the topic; none of an unknown one. */
  peers: PeerId[]
  peerCount: number
}

export interface TopicList extends Done<'listTopics'> {
  /** What we are subscribed to. */
  topics: string[]
  topicCount: number
}

/** All of them throw UnavailableError `unsupported` on a kit without pubsub, TypeError for what can't be a topic. */
export interface TopicMethods {
  /** Rejects like Gossipsub.publish: `not-found` when no connected peer is in the topic, unless `allowNone`. */
  publishToTopic(topic: string, data: string | Uint8Array, options?: PublishOptions): Promise<PublishedToTopic>
  /** Several handlers may listen to one topic; one that throws or rejects is traced and hurts no other. */
  subscribeToTopic(topic: string, handler: MessageHandler): SubscribedToTopic
  /** One handler, or all of them. Throws UnavailableError `not-found` where there is nothing to remove. */
  unsubscribeFromTopic(topic: string, handler?: MessageHandler): UnsubscribedFromTopic
  getTopicPeers(topic: string): TopicPeers
  listTopics(): TopicList
}

export function topicMethods(pubsub: Gossipsub | undefined, wallTime: () => number): TopicMethods {
  function there(): Gossipsub {
    if (pubsub !== undefined) return pubsub
    throw new UnavailableError('unsupported', 'this kit has no pubsub: createKit({ pubsub: true })')
  }
  const did = <Operation extends string>(operation: Operation): Done<Operation> => ({
    success: true,
    operation,
    timestamp: wallTime(),
  })

  return {
    async publishToTopic(topic, data, options) {
      const { id, recipients } = await there().publish(topic, data, options)
      return { ...did('publishToTopic'), topic, messageId: toHex(id), recipients }
    },
    subscribeToTopic(topic, handler) {
      there().subscribe(topic, handler)
      return { ...did('subscribeToTopic'), topic }
    },
    unsubscribeFromTopic(topic, handler) {
      there().unsubscribe(topic, handler)
      const left = !there().topics().includes(topic)
      return { ...did('unsubscribeFromTopic'), topic, handlerRemoved: handler !== undefined, left }
    },
    getTopicPeers(topic) {
      const peers = there().topicPeers(topic)
      return { ...did('getTopicPeers'), topic, peers, peerCount: peers.length }
    },
    listTopics() {
      const topics = there().topics()
      return { ...did('listTopics'), topics, topicCount: topics.length }
    },
  }
}
