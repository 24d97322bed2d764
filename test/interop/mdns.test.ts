/*
 * Multicast DNS with avahi, Kubo (go-libp2p) and js-libp2p over a bridge between two network namespaces, IPv4 and IPv6.
 * Needs root and `ip netns`; without, the tests are skipped, and say so.
 */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { builtPeers } from './peers.ts'

const run = promisify(execFile)
const main = join(import.meta.dirname, '../../src/cli/main.ts')
const tag = `rz${process.pid % 10_000}`
const [here, there, bridge] = [`${tag}a`, `${tag}b`, `${tag}br`]

function reasonNot(): string {
  if (process.getuid?.() !== 0) return 'not root'
  const probe = spawnSync('ip', ['netns', 'add', `${tag}p`], { encoding: 'utf8' })
  if (probe.status !== 0) return `ip netns: ${probe.error?.message ?? probe.stderr.trim()}`
  spawnSync('ip', ['netns', 'del', `${tag}p`])
  return ''
}

const reason = reasonNot()
if (reason !== '') process.stderr.write(`multicast DNS between namespaces is skipped: ${reason}\n`)
const { ipfs, jsDir, jsNode } = builtPeers()
const hasAvahi = ['avahi-daemon', 'avahi-browse', 'avahi-publish', 'dbus-daemon'].every(
  (name) => spawnSync('which', [name]).status === 0,
)
for (const [name, there_] of [
  ['avahi', hasAvahi],
  ['Kubo', ipfs !== null],
  ['js-libp2p', jsDir !== null],
] as const) {
  if (!there_) process.stderr.write(`multicast DNS with ${name} is skipped: it is not installed\n`)
}

async function ip(...args: string[]): Promise<void> {
  await run('ip', args)
}

let dir: string

interface Program {
  child: ChildProcess
  out: string[]
  err: string[]
}

/** In a namespace; ends with the test. */
function program(space: string, file: string, args: string[], env: NodeJS.ProcessEnv = {}, cwd?: string): Program {
  const child = spawn('ip', ['netns', 'exec', space, file, ...args], {
    env: { ...process.env, npm_lifecycle_event: '', ...env },
    ...(cwd !== undefined && { cwd }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const made: Program = { child, out: [], err: [] }
  createInterface({ input: child.stdout }).on('line', (line) => made.out.push(line))
  createInterface({ input: child.stderr }).on('line', (line) => made.err.push(line))
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve()
        const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
        child.once('exit', () => {
          clearTimeout(late)
          resolve()
        })
        child.kill('SIGTERM')
      }),
  )
  return made
}

const patient = { timeout: 45_000, interval: 100 }

interface Rhiza extends Program {
  peerId: string
  /** Peers that it found, with where they are said to be. */
  found(): string[]
  connected(peer: string): boolean
}

async function rhiza(): Promise<Rhiza> {
  const repo = await mkdtemp(join(dir, 'repo-'))
  const listen = ['--listen', '/ip4/10.77.0.1/tcp/0', '--listen', '/ip6/fd77::1/tcp/0']
  const args = [main, 'serve', '--repo', repo, '--json', '--trace', '--mdns', '--dht', 'none', ...listen]
  const made = program(here, process.execPath, args)
  await expect
    .poll(() => made.out[0] ?? made.err.find((line) => line.includes('"error"')), patient)
    .toContain('listening')
  const { peerId } = JSON.parse(made.out[0] ?? '') as { peerId: string }
  const traced = (what: string): Record<string, unknown>[] =>
    made.err.flatMap((line) => {
      if (!line.includes(`"${what}"`)) return []
      return [JSON.parse(line) as Record<string, unknown>]
    })
  return {
    ...made,
    peerId,
    found: () => traced('discovery.found').flatMap(({ source, peer }) => (source === 'mdns' ? [String(peer)] : [])),
    connected: (peer) => traced('identify.done').some((event) => event['peer'] === peer),
  }
}

const peerIdOf = (bytes: string): string => /"peerId":"(\w+)"/.exec(bytes)?.[1] ?? ''

describe.skipIf(reason !== '')('multicast DNS between two machines', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'rhiza-mdns-'))
    await ip('link', 'add', bridge, 'type', 'bridge')
    await ip('link', 'set', bridge, 'up')
    for (const [space, number] of [
      [here, '1'],
      [there, '2'],
    ] as const) {
      await ip('netns', 'add', space)
      await ip('link', 'add', `${space}v`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space)
      await ip('link', 'set', `${space}v`, 'master', bridge, 'up')
      await ip('-n', space, 'link', 'set', 'lo', 'up')
      await ip('-n', space, 'link', 'set', 'eth0', 'up')
      await ip('-n', space, 'addr', 'add', `10.77.0.${number}/24`, 'dev', 'eth0')
      await ip('-n', space, '-6', 'addr', 'add', `fd77::${number}/64`, 'dev', 'eth0', 'nodad')
      // js-libp2p leaves the choice of the interface to the routing table.
      await ip('-n', space, 'route', 'add', 'default', 'dev', 'eth0')
    }
  })
  afterAll(async () => {
    for (const args of [
      ['netns', 'del', here],
      ['netns', 'del', there],
      ['link', 'del', bridge],
    ]) {
      await ip(...args).catch((error: unknown) => process.stderr.write(`${String(error)}\n`))
    }
    await rm(dir, { recursive: true, force: true })
  })

  it('rhiza fetches by the CID alone from a rhiza on the other machine', async () => {
    const [from, to] = [join(dir, 'from'), join(dir, 'to')]
    await writeFile(join(dir, 'near.txt'), 'it was near')
    const { stdout: cid } = await run(process.execPath, [main, 'add', '-q', join(dir, 'near.txt'), '--repo', from])
    const serve = program(there, process.execPath, [main, 'serve', '--repo', from, '--json', '--mdns'])
    await expect.poll(() => serve.out[0] ?? serve.err.join('\n'), patient).toContain('listening')
    const got = program(here, process.execPath, [main, 'cat', cid.trim(), '--repo', to, '--mdns'])
    await expect.poll(() => got.out.join('\n') + got.err.join('\n'), patient).toBe('it was near')
  })

  it.skipIf(!hasAvahi)('avahi sees rhiza, and rhiza what avahi publishes', async () => {
    const bus = join(dir, 'bus')
    await writeFile(
      join(dir, 'dbus.conf'),
      [
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"',
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">',
        `<busconfig><type>system</type><listen>unix:path=${bus}</listen><auth>EXTERNAL</auth>`,
        '<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>',
        '<allow own="*"/><allow user="*"/></policy></busconfig>',
      ].join('\n'),
    )
    const conf = ['[server]', 'host-name=rhiza-avahi', 'enable-dbus=yes', '[publish]', 'publish-workstation=no', '']
    await writeFile(join(dir, 'avahi.conf'), conf.join('\n'))
    const env = { DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${bus}` }
    program(there, 'dbus-daemon', [`--config-file=${join(dir, 'dbus.conf')}`, '--nofork'])
    await expect.poll(() => spawnSync('test', ['-S', bus]).status, patient).toBe(0)
    const args = ['-f', join(dir, 'avahi.conf'), '--no-drop-root', '--no-chroot', '--no-rlimits']
    const avahi = program(there, 'avahi-daemon', args, env)
    await expect.poll(() => avahi.err.join('\n'), patient).toContain('startup complete')
    const node = await rhiza()
    const browse = program(there, 'avahi-browse', ['-rp', '_p2p._udp'], env)
    for (const addr of ['/ip4/10.77.0.1/tcp/', '/ip6/fd77::1/tcp/']) {
      await expect
        .poll(() => browse.out.join('\n'), patient)
        .toMatch(new RegExp(`dnsaddr=${addr}\\d+/p2p/${node.peerId}"`))
    }
    const published = '12D3KooWE857rrHAabzeoep9xbV7yCeuk3StYYBkahj351wtikRY'
    const texts = ['/ip4/10.77.0.2/tcp/4001', '/ip6/fd77::2/tcp/4001'].map((a) => `dnsaddr=${a}/p2p/${published}`)
    program(there, 'avahi-publish', ['-s', 'x'.repeat(32), '_p2p._udp', '4001', ...texts], env)
    await expect.poll(() => node.found(), patient).toContain(published)
  })

  it.skipIf(ipfs === null)('Kubo (go-libp2p) and rhiza find each other, and connect', async () => {
    const env = { IPFS_PATH: join(dir, 'kubo'), IPFS_TELEMETRY: 'off' }
    const kubo = async (...args: string[]): Promise<string> =>
      (await run('ip', ['netns', 'exec', there, ipfs ?? '', ...args], { env: { ...process.env, ...env } })).stdout
    await kubo('init', '--empty-repo')
    const settings: Record<string, unknown> = {
      'Addresses.Swarm': ['/ip4/10.77.0.2/tcp/4001', '/ip6/fd77::2/tcp/4001'],
      'Addresses.Gateway': [],
      'AutoConf.Enabled': false,
      'AutoTLS.Enabled': false,
      Bootstrap: [],
      'DNS.Resolvers': {},
      'Discovery.MDNS.Enabled': true,
      'Ipns.DelegatedPublishers': [],
      'Provide.Enabled': false,
      'Routing.Type': 'none',
      'Routing.DelegatedRouters': [],
      'Swarm.DisableNatPortMap': true,
    }
    for (const [name, value] of Object.entries(settings)) await kubo('config', '--json', name, JSON.stringify(value))
    const id = (await kubo('config', 'Identity.PeerID')).trim()
    const daemon = program(there, ipfs ?? '', ['daemon'], env)
    await expect
      .poll(() => daemon.out.join('\n') + daemon.err.slice(-5).join('\n'), patient)
      .toContain('Daemon is ready')
    const node = await rhiza()
    await expect.poll(() => node.found(), patient).toContain(id)
    await expect.poll(() => node.connected(id), patient).toBe(true)
    expect(await kubo('swarm', 'peers')).toContain(node.peerId)
  })

  it.skipIf(ipfs === null)('Kubo (go-libp2p) finds a rhiza that dials nobody', async () => {
    const env = { IPFS_PATH: join(dir, 'kubo'), IPFS_TELEMETRY: 'off' }
    const daemon = program(there, ipfs ?? '', ['daemon'], env)
    await expect
      .poll(() => daemon.out.join('\n') + daemon.err.slice(-5).join('\n'), patient)
      .toContain('Daemon is ready')
    const silent = program(
      here,
      process.execPath,
      ['--input-type=module', '-e', passive],
      {},
      join(import.meta.dirname, '../..'),
    )
    await expect.poll(() => silent.out[0] ?? silent.err.join('\n'), patient).toContain('peerId')
    await expect.poll(() => silent.out.join('\n') + silent.err.join('\n'), patient).toContain('inbound')
  })

  it.skipIf(jsDir === null || jsNode === null)('js-libp2p and rhiza find each other', async () => {
    const js = program(there, jsNode ?? '', ['--input-type=module', '-e', jsPeer], {}, jsDir ?? '')
    await expect.poll(() => js.out[0] ?? js.err.join('\n'), patient).toContain('peerId')
    const id = peerIdOf(js.out[0] ?? '')
    const node = await rhiza()
    await expect.poll(() => node.found(), patient).toContain(id)
    await expect.poll(() => js.out.join('\n'), patient).toContain(`found ${node.peerId}`)
  })
})

/** A node that is found, and only waits. */
const passive = `
  import { createDiscovery } from './src/discovery/discovery.ts'
  import { mdns } from './src/discovery/mdns/mdns.ts'
  import { createNode } from './src/node.ts'
  const node = await createNode({ listen: ['/ip4/10.77.0.1/tcp/0'] })
  await node.start()
  node.on('connection:open', ({ direction }) => console.log(direction))
  createDiscovery(node, [mdns()], { connectBelow: 0 }).start()
  console.log(JSON.stringify({ peerId: node.peerId.toString() }))`

const jsPeer = `
  import { createLibp2p } from 'libp2p'
  import { tcp } from '@libp2p/tcp'
  import { noise } from '@libp2p/noise'
  import { yamux } from '@libp2p/yamux'
  import { identify } from '@libp2p/identify'
  import { mdns } from '@libp2p/mdns'
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/10.77.0.2/tcp/0'] },
    transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()],
    services: { identify: identify() },
    peerDiscovery: [mdns({ interval: 1000 })],
  })
  node.addEventListener('peer:discovery', ({ detail }) => console.log('found ' + detail.id))
  console.log(JSON.stringify({ peerId: node.peerId.toString() }))`
