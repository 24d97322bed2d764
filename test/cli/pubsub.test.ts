/* rhiza pubsub and serve --topic, each in a process of its own on loopback, with a kit in this one among them. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { toUtf8 } from '../../src/bytes.ts'
import { shown } from '../../src/cli/commands/pubsub.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { createNode } from '../../src/node.ts'
import { generateKey } from '../../src/peer/keys.ts'
import type { PubSubMessage } from '../../src/protocols/gossipsub/gossipsub.ts'
import { rhiza, rhizaJson, rhizaServe, scratch, type Ran, type Scratch } from './rhiza.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const main = join(import.meta.dirname, '../../src/cli/main.ts')
const listen = ['/ip4/127.0.0.1/tcp/0']
let s: Scratch
let hub: Kit
let at: string[]

beforeAll(async () => {
  s = await scratch()
  hub = await createKit({ listen, pubsub: { heartbeatIntervalMs: 200 } })
  await hub.start()
  at = ['--peer', String(hub.node.addrs()[0])]
})
afterAll(async () => {
  await hub.stop()
  await s.remove()
})

function errorOf({ stderr }: Pick<Ran, 'stderr'>): { code: string; message: string } {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  return (JSON.parse(line) as { error: { code: string; message: string } }).error
}

interface Running {
  lines: string[]
  err: string[]
  ended: Promise<number | null>
  kill(signal: NodeJS.Signals): void
}

/** A command that prints as it goes. */
function running(args: readonly string[]): Running {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const lines: string[] = []
  const err: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => void lines.push(line))
  createInterface({ input: child.stderr }).on('line', (line) => void err.push(line))
  const ended = new Promise<number | null>((resolve) => void child.on('close', resolve))
  onTestFinished(() => void child.kill('SIGKILL'))
  return { lines, err, ended, kill: (signal) => void child.kill(signal) }
}

/** `rhiza pubsub sub`, once the kit knows that it is in the topic. */
async function subscriber(topic: string, args: readonly string[] = []): Promise<Running> {
  const sub = running(['pubsub', 'sub', topic, ...at, ...args])
  await expect.poll(() => hub.getTopicPeers(topic).peerCount, { timeout: 20_000 }).toBe(1)
  return sub
}

/** What a kit hears in a topic. */
function heard(topic: string): PubSubMessage[] {
  const messages: PubSubMessage[] = []
  const subscription = hub.pubsub?.subscribe(topic, (message) => void messages.push(message))
  onTestFinished(() => subscription?.unsubscribe())
  return messages
}

describe('rhiza pubsub pub', () => {
  it('publishes its argument, and ends once a peer of the topic has taken it', async () => {
    const messages = heard('pub')
    const [told] = await rhizaJson(['pubsub', 'pub', 'pub', 'grüße', ...at])
    await expect.poll(() => messages.map(({ data }) => toUtf8(data))).toEqual(['grüße'])
    expect(told).toEqual({
      topic: 'pub',
      id: Buffer.from(messages[0]?.id ?? []).toString('hex'),
      recipients: [String(hub.node.peerId)],
    })
  })

  it('publishes standard input as it is', async () => {
    const messages = heard('stdin')
    const input = Uint8Array.from({ length: 200_000 }, (_, i) => i % 256)
    for (const args of [['-'], []]) await rhizaJson(['pubsub', 'pub', 'stdin', ...args, ...at], { input })
    await expect.poll(() => messages.length).toBe(2)
    for (const { data } of messages) expect(Buffer.compare(data, input)).toBe(0)
  })

  it('waits for somebody to come into the topic', async () => {
    const publishing = running(['pubsub', 'pub', 'later', 'at last', ...at])
    await expect.poll(() => hub.node.peers().length, { timeout: 20_000 }).toBe(1)
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(publishing.lines).toEqual([])
    const messages = heard('later')
    expect(await publishing.ended).toBe(0)
    await expect.poll(() => messages.map(({ data }) => toUtf8(data))).toEqual(['at last'])
  })

  it('says what to do where nobody takes it', async () => {
    const ran = await rhiza(['pubsub', 'pub', 'nobody', 'x', ...at, '--timeout', '1s', '--json'])
    expect(ran.code).toBe(1)
    expect(errorOf(ran).code).toBe('not-found')
    expect(errorOf(ran).message).toMatch(
      /nobody came into topic nobody within 1 s, of 1 peer that can.*--topic.*--peer/,
    )
    const input = new Uint8Array(1_100_000)
    const long = await rhiza(['pubsub', 'pub', 'nobody', ...at, '--json'], { input })
    expect(errorOf(long)).toMatchObject({ code: 'usage' })
  })

  it('tells at once that a peer does not speak GossipSub, or is not there', async () => {
    const node = await createNode({ listen })
    onTestFinished(() => node.stop())
    await node.start()
    const [addr] = node.addrs().map(String)
    const ran = await rhiza(['pubsub', 'pub', 'x', 'y', '--peer', addr ?? '', '--json'])
    expect(errorOf(ran).code).toBe('no-protocol')
    expect(errorOf(ran).message).toContain('--peer')
    await node.stop()
    const gone = await rhiza(['pubsub', 'pub', 'x', 'y', '--peer', addr ?? '', '--json'])
    expect(errorOf(gone).code).toBe('unreachable')
  })
})

describe('rhiza pubsub sub', () => {
  it('prints one object a line, text only where it is UTF-8, and ends after --count messages', async () => {
    const sub = await subscriber('sub', ['--json', '--count', '2'])
    const from = String(hub.node.peerId)
    const first = await hub.publishToTopic('sub', 'line\nand \u001B[31mred\u009B')
    await expect.poll(() => sub.lines).toHaveLength(1)
    const second = await hub.publishToTopic('sub', Uint8Array.of(0xff, 0xfe))
    expect(await sub.ended).toBe(0)
    const text = 'line\nand \u001B[31mred\u009B'
    const data = Buffer.from(text).toString('base64')
    expect(sub.lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { from, topic: 'sub', id: first.messageId, data, text },
      { from, topic: 'sub', id: second.messageId, data: '//4=' },
    ])
    // As JSON, too, nothing steers a terminal.
    for (const steering of ['\u001B', '\u009B']) expect(sub.lines.join('')).not.toContain(steering)
  })

  it.each([
    [[...Buffer.from('grüße')], 'grüße'],
    [[...Buffer.from('\u001B[2J\ntwo')], '\\x1b[2J\\ntwo'],
    [[0xff, 0x1b], '0xff1b'],
  ])('shows %j on a terminal as %s', (data, text) => {
    expect(shown(Uint8Array.from(data))).toBe(text)
  })

  it.each(['SIGINT', 'SIGTERM'] as const)('prints messages as they come, and ends well by %s', async (signal) => {
    const sub = await subscriber('plain')
    await hub.publishToTopic('plain', 'one')
    await expect.poll(() => sub.lines).toEqual(['one'])
    await hub.publishToTopic('plain', 'two')
    await expect.poll(() => sub.lines).toEqual(['one', 'two'])
    expect(sub.err).toEqual(['subscribed to plain; Ctrl-C ends'])
    sub.kill(signal)
    expect(await sub.ended).toBe(0)
    await expect.poll(() => hub.getTopicPeers('plain').peerCount).toBe(0)
  })
})

describe('rhiza pubsub sub, when its peer comes back', () => {
  it('connects again, and leaves out a peer that does not answer', async () => {
    const privateKey = generateKey()
    const start = async (port: string): Promise<Kit> => {
      const kit = await createKit({ privateKey, listen: [`/ip4/127.0.0.1/tcp/${port}`], pubsub: true })
      onTestFinished(() => kit.stop())
      await kit.start()
      return kit
    }
    const before = await start('0')
    const addr = String(before.node.addrs()[0])
    const dead = `/ip4/127.0.0.1/tcp/1/p2p/${generateKey().publicKey.peerId}`
    const sub = running(['pubsub', 'sub', 'again', '--peer', addr, '--peer', dead, '--count', '1'])
    await expect.poll(() => before.getTopicPeers('again').peerCount, { timeout: 20_000 }).toBe(1)
    expect(sub.err[0]).toContain(`left out ${dead}`)
    await before.stop()
    const after = await start(addr.split('/')[4] ?? '')
    await expect.poll(() => after.getTopicPeers('again').peerCount, { timeout: 20_000 }).toBe(1)
    await after.publishToTopic('again', 'back again')
    expect(await sub.ended).toBe(0)
    expect(sub.lines).toEqual(['back again'])
  })
})

describe('rhiza serve --topic', () => {
  it('hands messages on between peers that do not know each other', async () => {
    const served = await rhizaServe(s.at('relay'), ['--dht', 'none', '--topic', 'chat', '--topic', 'news'])
    onTestFinished(() => void served.stop())
    const to = ['--peer', served.addr]
    const sub = running(['pubsub', 'sub', 'chat', ...to, '--count', '1'])
    await expect.poll(() => sub.err, { timeout: 20_000 }).toHaveLength(1)
    await rhizaJson(['pubsub', 'pub', 'chat', 'by the relay', ...to])
    expect(await sub.ended).toBe(0)
    expect(sub.lines).toEqual(['by the relay'])
    const peer = served.peerId
    expect(await rhizaJson(['pubsub', 'ls', ...to])).toEqual([
      { topic: 'chat', peers: 1 },
      { topic: 'news', peers: 1 },
    ])
    expect(await rhizaJson(['pubsub', 'peers', ...to])).toEqual([{ peer, topics: ['chat', 'news'] }])
    expect(await rhizaJson(['pubsub', 'peers', 'news', ...to])).toEqual([{ peer, topics: ['chat', 'news'] }])
    expect((await rhiza(['pubsub', 'peers', 'else', ...to])).stdout).toBe('')
    expect((await rhiza(['pubsub', 'peers', ...to])).stdout).toBe(`${peer}\n  chat\n  news\n`)
    expect(await rhizaJson(['pubsub', 'score', ...to])).toMatchObject([{ peer, score: 0, p5: 0, p6: 0, p7: 0 }])
    expect(await served.stop('SIGINT')).toBe(0)
  })

  it('does not speak of topics unless told to', async () => {
    const served = await rhizaServe(s.at('quiet'), ['--dht', 'none'])
    onTestFinished(() => void served.stop())
    const ran = await rhiza(['pubsub', 'ls', '--peer', served.addr, '--json'])
    expect(errorOf(ran).code).toBe('no-protocol')
  })
})

describe('rhiza pubsub', () => {
  it.each([
    [['pubsub']],
    [['pubsub', 'fly']],
    [['pubsub', 'pub']],
    [['pubsub', 'pub', 'x', 'y']],
    [['pubsub', 'pub', '', 'y', '--peer', '/memory/1']],
    [['pubsub', 'pub', 'x'.repeat(1_025), 'y', '--peer', '/memory/1']],
    [['pubsub', 'sub', 'x']],
    [['pubsub', 'sub', 'x', '--count', '0', '--peer', '/memory/1']],
    [['pubsub', 'ls', '--peer', 'moon']],
    [['pubsub', 'ls', '--wait', 'moon', '--peer', '/memory/1']],
    [['serve', '--topic', '']],
  ])('answers %j with one line and exit code 1', async (args) => {
    const { code, stdout, stderr } = await rhiza([...args, '--json'], { repo: s.at('usage') })
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(errorOf({ stderr }).code).toBe('usage')
  })

  it('explains each of its commands', async () => {
    const all = await rhiza(['pubsub', '--help'])
    expect(all.code).toBe(0)
    for (const name of ['pub', 'sub', 'peers', 'ls', 'score']) {
      expect(all.stdout).toContain(`rhiza pubsub ${name}`)
      const one = await rhiza(['pubsub', name, '--help'])
      expect(one.stdout).toMatch(new RegExp(`^rhiza pubsub ${name}`))
      expect(one.stdout).toContain('--peer')
    }
    expect((await rhiza(['pubsub', 'score', '--help'])).stdout).toContain('what a node sees')
  })
})
