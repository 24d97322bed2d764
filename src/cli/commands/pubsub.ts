/* `rhiza pubsub`: topics, by a node that is there for this command alone, with an id of its own. */
import { toHex, toUtf8 } from '../../bytes.ts'
import { deadline, sleep } from '../../deadline.ts'
import { UnavailableError, asError } from '../../errors.ts'
import type { Connection } from '../../host.ts'
import { createKit, type Kit } from '../../kit/kit.ts'
import { encodeBase } from '../../multibase.ts'
import type { Gossipsub, PubSubMessage } from '../../protocols/gossipsub/gossipsub.ts'
import { checkTopic } from '../../protocols/gossipsub/topics.ts'
import { floodsubId, meshsubIds } from '../../protocols/gossipsub/wire.ts'
import {
  UsageError,
  networkOptions,
  parseDuration,
  stopTimeoutMs,
  type Command,
  type Context,
  type OptionSpecs,
} from '../args.ts'
import { printable } from '../output.ts'

const options = {
  peer: { ...networkOptions.peer, help: 'connect to this peer; repeatable: /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo...' },
} as const satisfies OptionSpecs

const lookingOptions = {
  ...options,
  wait: { type: 'string', value: 'TIME', help: 'how long peers get to say what they are in (default 1s)' },
  timeout: { ...networkOptions.timeout, help: 'give up connecting after so long: 500ms, 30s, 5m (default 30s)' },
} as const satisfies OptionSpecs

const ids = new Set([...meshsubIds, floodsubId])
const speaks = ({ protocols }: Connection): boolean => protocols?.some((id) => ids.has(id)) === true
const lookEveryMs = 20

/** Throws UsageError. */
export function topicOf(what: string, text = ''): string {
  try {
    checkTopic(text)
    return text
  } catch (error) {
    throw new UsageError(`${what} ${JSON.stringify(text.slice(0, 64))}: ${asError(error).message}`)
  }
}

interface There {
  kit: Kit
  pubsub: Gossipsub
  /** By topic, the peers that said to be in it. */
  topics: ReadonlyMap<string, ReadonlySet<string>>
}

/** Connects to all that are named; one must answer, and one must speak GossipSub. */
async function connect(
  { kit, pubsub }: Pick<There, 'kit' | 'pubsub'>,
  { peers, out }: Context,
  signal: AbortSignal,
): Promise<void> {
  const dials = await Promise.allSettled(peers.map((peer) => kit.node.dial(peer, { signal })))
  signal.throwIfAborted()
  const tried = dials.flatMap((dial, i) =>
    dial.status === 'rejected' ? [{ what: peers[i] ?? '', reason: asError(dial.reason) }] : [],
  )
  if (tried.length === dials.length) {
    const [only] = tried
    if (tried.length === 1 && only !== undefined) throw only.reason
    throw new UnavailableError('unreachable', 'none of the peers could be reached', tried)
  }
  for (const { what, reason } of tried) out.note(`left out ${what}: ${reason.message}`)
  // It is known once they said who they are.
  while (pubsub.stats().peers === 0) {
    const connections = kit.node.connections()
    if (connections.length === 0) throw new UnavailableError('unreachable', 'the peers hung up')
    if (connections.every((one) => one.protocols !== undefined && !speaks(one)))
      throw new UnavailableError(
        'no-protocol',
        `${connections.length === 1 ? 'the peer does not speak' : `none of the ${connections.length} peers speaks`} GossipSub: name one that does with --peer (rhiza serve does with --topic, Kubo with Pubsub.Enabled)`,
      )
    await sleep(kit.node.env, lookEveryMs, signal)
  }
}

/** Runs `work` with a node that is connected to the peers that are named. */
async function withTopics(context: Context, work: (there: There) => Promise<void>): Promise<void> {
  const { peers, timeoutMs, signal } = context
  if (peers.length === 0) throw new UsageError('connect to whom? want --peer ADDR, an address that rhiza serve prints')
  const kit = await createKit({ pubsub: true, stopTimeoutMs, dialTimeoutMs: timeoutMs })
  const { pubsub } = kit
  if (pubsub === undefined) throw new UnavailableError('unsupported', 'there is no pubsub')
  const { env } = kit.node
  const topics = new Map<string, Set<string>>()
  pubsub.on('subscription', ({ peer, topic, subscribed }) => {
    const members = topics.get(topic) ?? new Set()
    if (subscribed) topics.set(topic, members.add(peer.toString()))
    else if (members.delete(peer.toString()) && members.size === 0) topics.delete(topic)
  })
  try {
    await kit.start()
    const bound = deadline({ env, timeoutMs, what: 'connecting to a peer that speaks GossipSub', signal })
    try {
      await connect({ kit, pubsub }, context, bound.signal)
    } finally {
      bound.done()
    }
    await work({ kit, pubsub, topics })
  } finally {
    await kit.stop()
  }
}

/** A message has at most so many bytes (GossipsubOptions.maxMessageBytes). */
const maxMessageBytes = 1024 * 1024

async function readMessage(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Uint8Array)
    size += (chunk as Uint8Array).length
    if (size > maxMessageBytes)
      throw new UsageError(`standard input is longer than a message may be: ${maxMessageBytes} bytes`)
  }
  return Buffer.concat(chunks)
}

const peersOf = (count: number): string => `${count} ${count === 1 ? 'peer' : 'peers'}`

/** Why nobody has taken it, and what to do. */
function untaken({ pubsub }: There, topic: string, timeoutMs: number): UnavailableError {
  const inTopic = pubsub.topicPeers(topic).length
  const within = `within ${timeoutMs / 1_000} s`
  if (inTopic > 0)
    return new UnavailableError(
      'unreachable',
      `${peersOf(inTopic)} of topic ${topic} did not take the message ${within}: they are slow, wait longer with --timeout`,
    )
  return new UnavailableError(
    'not-found',
    `nobody came into topic ${topic} ${within}, of ${peersOf(pubsub.stats().peers)} that can. Subscribe there (rhiza pubsub sub, rhiza serve --topic), name others with --peer, or wait longer with --timeout`,
  )
}

const pub: Command = {
  name: 'pubsub pub',
  summary: 'publish a message to a topic',
  usage: 'TOPIC [DATA|-] --peer ADDR',
  more: [
    'Without DATA, or with -, all of standard input is the message. It ends once a peer of the topic has taken the message;',
    'where none of the peers is in the topic yet, it waits for one. The message is signed by an id that is made for it.',
  ].join('\n'),
  options: {
    ...options,
    timeout: { ...networkOptions.timeout, help: 'give up when nobody took it after so long: 500ms, 30s (default 30s)' },
  },
  arity: [1, 2],
  async run(context) {
    const { args, out, signal, timeoutMs } = context
    const topic = topicOf('TOPIC', args[0])
    const [, text = '-'] = args
    if (context.peers.length === 0) throw new UsageError('publish by whom? want --peer ADDR')
    const data = text === '-' ? await readMessage() : text
    await withTopics(context, async (there) => {
      const { kit, pubsub } = there
      const bound = deadline({ env: kit.node.env, timeoutMs, what: 'publishing', signal })
      try {
        const { id, recipients } = await pubsub.publish(topic, data, { taken: true, signal: bound.signal })
        const record = { topic, id: toHex(id), recipients: recipients.map(String) }
        await out.result(record, `published ${record.id} to ${peersOf(recipients.length)}`)
      } catch (error) {
        if (!bound.signal.aborted || signal.aborted) throw error
        throw untaken(there, topic, timeoutMs)
      } finally {
        bound.done()
      }
    })
  },
}

function textOf(data: Uint8Array): string | undefined {
  try {
    return toUtf8(data)
  } catch {
    return undefined
  }
}

/** As a terminal may show it: what is not text as hex. */
export const shown = (data: Uint8Array): string =>
  printable(textOf(data) ?? `0x${toHex(data.subarray(0, 1024))}${data.length > 1024 ? '...' : ''}`)

async function print({ out }: Context, { from, topic, data, id }: PubSubMessage): Promise<void> {
  if (out.json) {
    const text = textOf(data)
    const base64 = encodeBase('base64', data)
    const record = { from: from === undefined ? null : String(from), topic, id: toHex(id), data: padded(base64) }
    await out.result({ ...record, ...(text !== undefined && { text }) }, '')
  } else if (process.stdout.isTTY) await out.write(`${shown(data)}\n`)
  else await out.write(Buffer.concat([data, Buffer.from('\n')]))
}

/** As every reader of base64 takes it. */
const padded = (base64: string): string => base64.padEnd(Math.ceil(base64.length / 4) * 4, '=')

const sub: Command = {
  name: 'pubsub sub',
  summary: 'print the messages of a topic as they come, until Ctrl-C',
  usage: 'TOPIC --peer ADDR [--count N]',
  more: [
    'One message a line; on a terminal, control characters are escaped. With --json one object a line: from, topic, id (hex),',
    'data (base64), and text where it is UTF-8. A peer that is lost is connected again.',
  ].join('\n'),
  options: {
    ...options,
    count: { type: 'string', short: 'n', value: 'N', help: 'end after so many messages' },
    timeout: { ...networkOptions.timeout, help: 'give up connecting after so long: 500ms, 30s, 5m (default 30s)' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options: given, out, signal } = context
    const topic = topicOf('TOPIC', args[0])
    const count = given['count'] === undefined ? Infinity : Number(given['count'])
    if (!(count >= 1) || (count !== Infinity && !Number.isSafeInteger(count)))
      throw new UsageError(`--count ${JSON.stringify(given['count'])}: want a whole number of at least 1`)
    await withTopics(context, async ({ kit, pubsub }) => {
      for (const peer of kit.node.peers()) kit.node.protect(peer)
      const messages = pubsub.messages(topic, { signal })
      out.note(`subscribed to ${topic}; Ctrl-C ends`)
      let printed = 0
      let dropped = 0
      try {
        for await (const message of messages) {
          await print(context, message)
          if (messages.dropped > dropped)
            out.note(`${messages.dropped - dropped} messages came faster than they could be printed`)
          dropped = messages.dropped
          if (++printed >= count) break
        }
      } catch (error) {
        // Ctrl-C is how it ends.
        if (!signal.aborted) throw error
      }
    })
  },
}

/** Who is in which topic, as the peers have said by the end of `--wait`. */
async function looking(context: Context, work: (there: There) => Promise<void>): Promise<void> {
  const { options: given, signal } = context
  const waitMs = parseDuration(String(given['wait'] ?? '1s'))
  await withTopics(context, async (there) => {
    await sleep(there.kit.node.env, waitMs, signal)
    await work(there)
  })
}

const seenFromHere = 'It shows what a node sees that connects to the peers of --peer for this moment.'

const peers: Command = {
  name: 'pubsub peers',
  summary: 'show the peers that speak GossipSub, or those in a topic',
  usage: '[TOPIC] --peer ADDR',
  more: seenFromHere,
  options: lookingOptions,
  arity: [0, 1],
  async run(context) {
    const { args, out } = context
    const wanted = args[0] === undefined ? undefined : topicOf('TOPIC', args[0])
    await looking(context, async ({ kit, pubsub, topics }) => {
      const there =
        wanted === undefined
          ? kit.node
              .connections()
              .filter(speaks)
              .map(({ peer }) => peer)
          : pubsub.topicPeers(wanted)
      for (const peer of new Set(there.map(String))) {
        const of = [...topics].flatMap(([topic, members]) => (members.has(peer) ? [topic] : []))
        const lines = wanted === undefined ? of.map((topic) => `  ${printable(topic)}`) : []
        await out.result({ peer, topics: of }, [peer, ...lines].join('\n'))
      }
    })
  },
}

const ls: Command = {
  name: 'pubsub ls',
  summary: 'list the topics that peers are in',
  usage: '--peer ADDR',
  more: seenFromHere,
  options: lookingOptions,
  arity: [0, 0],
  async run(context) {
    await looking(context, async ({ topics }) => {
      for (const [topic, { size }] of topics)
        await context.out.result({ topic, peers: size }, `${printable(topic)}  ${peersOf(size)}`)
    })
  },
}

const score: Command = {
  name: 'pubsub score',
  summary: 'show the scores of peers, with their parts',
  usage: '--peer ADDR',
  more: `${seenFromHere}\nA score falls with misbehaviour (p7) and with many peers at one address (p6); p5 is the application's.`,
  options: lookingOptions,
  arity: [0, 0],
  async run(context) {
    await looking(context, async ({ pubsub }) => {
      for (const [peer, { score: value, topics, p5, p6, p7, ips }] of pubsub.scores())
        await context.out.result(
          { peer, score: value, topics, p5, p6, p7, ips },
          `${peer}  ${value}  p5 ${p5}, p6 ${p6}, p7 ${p7}`,
        )
    })
  },
}

export const pubsub: readonly Command[] = [pub, sub, peers, ls, score]
