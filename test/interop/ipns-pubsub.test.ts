/* IPNS over pubsub with Kubo, both ways, and topics by rhiza's command line. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { toUtf8 } from '../../src/bytes.ts'
import { createNames, formatName, nameOf, type Names } from '../../src/ipns/ipns.ts'
import { createKit, type Kit, type KitOptions } from '../../src/kit/kit.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { rhizaJson } from '../cli/rhiza.ts'
import { available, builtPeers, startKubo, type Kubo } from './peers.ts'

const have = available()
const first = '/ipfs/bafkqaaa'
const second = '/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi'

async function started(options: KitOptions = {}): Promise<Kit> {
  const kit = await createKit({
    listen: ['/ip4/127.0.0.1/tcp/0'],
    pubsub: { names: true, heartbeatIntervalMs: 300 },
    ...options,
  })
  onTestFinished(() => kit.stop())
  await kit.start()
  return kit
}

function namesOf({ nameRouting: routing, node: { env } }: Kit): Names {
  if (routing === undefined) throw new Error('the kit has no way for names')
  return createNames({ routing, env, records: memoryRecords({ env }) })
}

describe.skipIf(!have.kubo)('Kubo and topics: IPNS over pubsub', () => {
  let kubo: Kubo
  beforeAll(async () => {
    kubo = await startKubo({ config: { 'Ipns.UsePubsub': true, 'Pubsub.Enabled': true } })
  })
  afterAll(() => kubo.stop())

  it('resolves a name that Kubo published before, and follows it', async () => {
    const name = (await kubo.run('key', 'gen', 'theirs', '--type=ed25519')).trim()
    await kubo.run('name', 'publish', '--key=theirs', '--allow-offline', first)
    const kit = await started()
    await kit.node.dial(kubo.addr)
    const names = namesOf(kit)
    expect((await names.resolve(name, { noCache: true })).path).toBe(first)
    await kubo.run('name', 'publish', '--key=theirs', '--allow-offline', second)
    await expect.poll(async () => (await names.resolve(name, { noCache: true })).path, { timeout: 10_000 }).toBe(second)
  })

  it('publishes a name that Kubo resolves, and its updates', async () => {
    const kit = await started()
    const key = generateKey()
    const name = formatName(nameOf(key.publicKey))
    const names = namesOf(kit)
    await names.publish(key, first)
    await kubo.run('swarm', 'connect', String(kit.node.addrs()[0]))
    const resolved = async (): Promise<string> =>
      (await kubo.run('name', 'resolve', '--nocache', '--timeout=5s', name).catch(() => '')).trim()
    await expect.poll(resolved, { timeout: 30_000 }).toBe(first)
    expect(await kubo.run('name', 'pubsub', 'subs')).toContain(name)
    const { peers } = await names.publish(key, second)
    expect(peers).toBe(1)
    await expect.poll(resolved, { timeout: 30_000 }).toBe(second)
  })

  it('publishes by the command line what ipfs pubsub sub prints, and prints what ipfs pubsub pub publishes', async () => {
    const topic = 'rhiza-and-kubo'
    const theirs = spawn(builtPeers().ipfs ?? '', ['pubsub', 'sub', '--enc=json', topic], {
      env: { ...process.env, IPFS_PATH: kubo.repo, IPFS_TELEMETRY: 'off' },
    })
    onTestFinished(() => void theirs.kill())
    const printed: string[] = []
    createInterface({ input: theirs.stdout }).on('line', (line) => {
      if (line === '') return
      const { data } = JSON.parse(line) as { data: string }
      printed.push(Buffer.from(data.slice(1), 'base64url').toString())
    })
    const [told] = await rhizaJson(['pubsub', 'pub', topic, 'to Kubo', '--peer', kubo.addr])
    expect(told?.['recipients']).toEqual([kubo.peerId])
    await expect.poll(() => printed).toEqual(['to Kubo'])
    expect(await rhizaJson(['pubsub', 'ls', '--peer', kubo.addr])).toContainEqual({ topic, peers: 1 })

    const kit = await started()
    const heard: string[] = []
    kit.subscribeToTopic(topic, ({ data, from }) => void heard.push(`${toUtf8(data)} ${from}`))
    await kit.node.dial(kubo.addr)
    await expect.poll(() => kubo.run('pubsub', 'peers', topic)).toContain(String(kit.node.peerId))
    const publishing = spawn(builtPeers().ipfs ?? '', ['pubsub', 'pub', topic], {
      env: { ...process.env, IPFS_PATH: kubo.repo, IPFS_TELEMETRY: 'off' },
    })
    publishing.stdin.end('from Kubo')
    await expect.poll(() => heard, { timeout: 10_000 }).toEqual([`from Kubo ${kubo.peerId}`])
  })
})
