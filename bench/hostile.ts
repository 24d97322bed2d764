/*
 * What an honest peer feels while others attack the node it is connected with: echoes of 1 KiB, one after another, quiet
 * and under attack in turn; the ratio of their 99th percentiles, attack by attack. Victim, attacker and honest peer are
 * processes of their own. Attacks come at a stated rate: CPU is shared by all three, so each round also strikes another
 * node of the kind (`elsewhere`): what the honest peer feels then is the machine's doing, not its node's. What the attack
 * costs the victim alone is its CPU time, in milliseconds a second, while nobody else asks anything of it.
 * Options: --rounds N, --echoes N, --only ATTACK (repeatable). Prints one line of JSON.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import net from 'node:net'
import { cpus, loadavg } from 'node:os'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { systemEnv } from '../src/env.ts'
import { multiaddr } from '../src/multiaddr.ts'
import { encodeHeader, flag, frameType, headerBytes } from '../src/mux/yamux/frame.ts'
import { yamuxId } from '../src/mux/yamux/yamux.ts'
import { createNode, type Node } from '../src/node.ts'
import { generateKey } from '../src/peer/keys.ts'
import { encodeTokens, header } from '../src/protocols/multistream/wire.ts'
import { select } from '../src/protocols/multistream/multistream.ts'
import { createNoise } from '../src/security/noise/noise.ts'
import { SocketWire } from '../src/socket-wire.ts'
import { BufferedStream, type Stream } from '../src/stream.ts'
import { WireStream } from '../src/wire.ts'

const here = fileURLToPath(import.meta.url)
const progress = (text: string): void => void process.stderr.write(`${text}\n`)

// --- the attacker's process -----------------------------------------------------------------------------------------

function frame(type: number, flags: number, id: number, length: number): Uint8Array {
  const out = new Uint8Array(headerBytes)
  encodeHeader(out, 0, type, flags, id, length)
  return out
}

function connect(port: number): Promise<net.Socket> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true }, () => resolve(socket))
    socket.on('error', () => socket.destroy())
  })
}

/** An authenticated connection whose muxer is ours to abuse; what comes is thrown away. */
async function tunnel(port: number): Promise<Stream> {
  const raw = new WireStream(new SocketWire(await connect(port)))
  const { rest } = await select(raw, ['/noise'])
  const behind = new BufferedStream(raw)
  if (rest !== undefined) behind.unread(rest)
  const noise = createNoise({ privateKey: generateKey(), env: systemEnv() })
  const { wire } = await noise.secure('initiator', behind, { muxers: [yamuxId] })
  const stream = new WireStream(wire)
  void drain(stream)
  return stream
}

async function drain(stream: Stream): Promise<void> {
  try {
    while ((await stream.read()) !== null);
  } catch {
    // Cut off: that is what it is for.
  }
}

/** Runs `work` so many times a second, for ever. */
async function atRate(perSecond: number, work: (turn: number) => unknown): Promise<never> {
  const begin = performance.now()
  for (let turn = 0; ; turn++) {
    void work(turn)
    const ahead = begin + ((turn + 1) * 1000) / perSecond - performance.now()
    if (ahead > 1) await sleep(ahead)
  }
}

const attacks = {
  '500 connections a second that say nothing': (port: number) => atRate(500, () => connect(port)),
  '200 connections a second that send garbage': (port: number) =>
    atRate(200, async () => {
      const socket = await connect(port)
      socket.end(crypto.getRandomValues(new Uint8Array(2_000)))
      socket.resume()
    }),
  '50 handshakes a second': (port: number) =>
    atRate(50, async () => {
      const stream = await tunnel(port)
      stream.reset()
    }),
  '5,000 streams a second, opened and reset': async (port: number) => {
    const stream = await tunnel(port)
    return atRate(500, (turn) => {
      for (let i = 0; i < 10; i++) {
        const id = 2 * (turn * 10 + i) + 1
        void stream.write(
          frame(frameType.windowUpdate, flag.syn, id, 0),
          frame(frameType.windowUpdate, flag.rst, id, 0),
        )
      }
    })
  },
  '600 streams with full windows nobody reads': async (port: number) => {
    const stream = await tunnel(port)
    const proposal = encodeTokens(header, '/hold/1')
    const rest = new Uint8Array(256 * 1024 - proposal.length)
    for (let i = 0; i < 600; i++) {
      const id = 2 * i + 1
      await stream.write(frame(frameType.data, flag.syn, id, proposal.length), proposal)
      await stream.write(frame(frameType.data, 0, id, rest.length), rest)
    }
    return sleep(1e9)
  },
  '10,000 frames of one byte a second': async (port: number) => {
    const stream = await tunnel(port)
    const proposal = encodeTokens(header, '/hold/1')
    await stream.write(frame(frameType.data, flag.syn, 1, proposal.length), proposal)
    return atRate(1_000, () => {
      for (let i = 0; i < 10; i++) void stream.write(frame(frameType.data, 0, 1, 1), new Uint8Array(1))
    })
  },
} as const satisfies Record<string, (port: number) => Promise<unknown>>

// --- the honest peer's ----------------------------------------------------------------------------------------------

const quantile = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN

/** Microseconds of each echo. */
async function echoes(honest: Node, addr: string, count: number): Promise<number[]> {
  const stream = new BufferedStream(await honest.newStream(addr, '/echo/1.0.0'))
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    const begin = performance.now()
    await stream.write(new Uint8Array(1024))
    await stream.readExact(1024)
    times.push((performance.now() - begin) * 1000)
  }
  await stream.closeWrite()
  await stream.read()
  return times
}

const children = new Set<ChildProcess>()
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')))

function start(args: string[]): ChildProcess {
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}

async function main(): Promise<void> {
  const names = Object.keys(attacks)
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      echoes: { type: 'string', default: '2000' },
      only: { type: 'string', multiple: true, default: names },
    },
  })
  const [rounds, count] = [Number(values.rounds), Number(values.echoes)]
  const measured = fileURLToPath(new URL('../test/hostile/measured.ts', import.meta.url))
  const load = loadavg()[0]
  const results: Record<string, object> = {}
  for (const name of names) {
    if (!values.only.some((part) => name.includes(part))) continue
    // Each attack has a victim of its own: none pays for the one before.
    const victim = start(['--expose-gc', measured])
    const lines = createInterface({ input: victim.stdout as NonNullable<ChildProcess['stdout']> })
    const said = lines[Symbol.asyncIterator]()
    const { addr } = JSON.parse(String((await said.next()).value)) as { addr: string }
    const cpuMs = async (): Promise<number> => {
      victim.stdin?.write('{"cmd":"cpu"}\n')
      return (JSON.parse(String((await said.next()).value)) as { cpuMs: number }).cpuMs
    }
    const cpu: number[] = []
    const other = start(['--expose-gc', measured])
    const otherLines = createInterface({ input: other.stdout as NonNullable<ChildProcess['stdout']> })
    const elsewhere = JSON.parse(String((await otherLines[Symbol.asyncIterator]().next()).value)) as { addr: string }
    const honest = await createNode()
    for (let i = 0; i < 3; i++) await echoes(honest, addr, count)
    const p50: number[] = []
    const p99: number[] = []
    const quiet: number[] = []
    const machine: number[] = []
    const own: number[] = []
    for (let round = 0; round < rounds; round++) {
      const before = await echoes(honest, addr, count)
      const struck = async (at: string): Promise<number[]> => {
        const attacker = start([here, '--attack', name, '--port', multiaddr(at).value('tcp') ?? ''])
        await sleep(1_000)
        const times = await echoes(honest, addr, count)
        if (at === addr) {
          const [before, begin] = [await cpuMs(), performance.now()]
          await sleep(2_000)
          cpu.push(((await cpuMs()) - before) / ((performance.now() - begin) / 1000))
        }
        const gone = new Promise((resolve) => attacker.once('exit', resolve))
        attacker.kill('SIGKILL')
        await gone
        await sleep(500)
        return times
      }
      const beside = await struck(elsewhere.addr)
      const during = await struck(addr)
      machine.push(quantile(beside, 0.99) / quantile(before, 0.99))
      own.push(quantile(during, 0.99) / quantile(beside, 0.99))
      quiet.push(quantile(before, 0.99))
      p50.push(quantile(during, 0.5) / quantile(before, 0.5))
      p99.push(quantile(during, 0.99) / quantile(before, 0.99))
      const seen = `p99 x${p99.at(-1)?.toFixed(2)}, elsewhere x${machine.at(-1)?.toFixed(2)}`
      progress(`${name}: round ${round + 1}, p50 x${p50.at(-1)?.toFixed(2)}, ${seen}`)
    }
    await honest.stop()
    victim.stdin?.end()
    other.stdin?.end()
    const ratio = (values: number[]): object => ({
      median: Number(quantile(values, 0.5).toFixed(3)),
      min: Number(Math.min(...values).toFixed(3)),
      max: Number(Math.max(...values).toFixed(3)),
    })
    results[name] = {
      quietP99Us: Math.round(quantile(quiet, 0.5)),
      p50: ratio(p50),
      p99: ratio(p99),
      elsewhere: ratio(machine),
      own: ratio(own),
      cpuMsPerSecond: ratio(cpu),
    }
  }
  const about = { bench: 'hostile', rounds, echoes: count, cpus: cpus().length, load: [load, loadavg()[0]], want: 1.5 }
  process.stdout.write(`${JSON.stringify({ ...about, attacks: results })}\n`)
}

const attack = process.argv.indexOf('--attack')
if (attack < 0) {
  main().catch((error: unknown) => {
    progress(String(error instanceof Error ? error.stack : error))
    process.exitCode = 1
  })
} else {
  const name = process.argv[attack + 1] as keyof typeof attacks
  // Attacks break in many ways of their own making: each goes on as long as it can.
  process.on('unhandledRejection', () => {})
  process.on('uncaughtException', () => {})
  void attacks[name](Number(process.argv[attack + 3]))
}
