/*
 * Two rhiza processes that open, use and end connections and streams in every way for minutes, with each other and with
 * a node of their own process. Now and then all rests, garbage is collected, and what is left is measured: after the
 * warm-up the heap may grow by 1 MiB in 10 minutes, and no handle, timer, connection or stream may be left.
 *
 *   npm run soak -- --minutes 10 [--max-slope MIB] [--pause MS]
 *
 * The result is one line of JSON on stdout; the exit code is 1 when it is not good.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { judge, type Sample, type Tally } from './soak/figures.ts'
import type { Order, Report } from './soak/peer.ts'

const answerMs = 60_000
const say = (text: string): void => void process.stderr.write(`${text}\n`)

class Peer {
  readonly name: string
  readonly samples: Sample[] = []
  readonly problems: string[] = []
  addrs: string[] = []
  tally: Tally = {}
  readonly #child: ChildProcess

  constructor(name: string) {
    this.name = name
    this.#child = fork(join(import.meta.dirname, 'soak/peer.ts'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  }

  order(order: Order): void {
    this.#child.send(order)
  }

  /** The next report of this kind. */
  async wait<E extends Report['event']>(event: E): Promise<Extract<Report, { event: E }>> {
    const signal = AbortSignal.timeout(answerMs)
    return new Promise((resolve, reject) => {
      const fail = (why: string) => (): void => reject(new Error(`${this.name}: ${why}, waiting for ${event}`))
      this.#child.once('exit', fail('ended'))
      signal.addEventListener('abort', fail(`no answer in ${answerMs} ms`))
      this.#child.once('message', (report: Report) => {
        this.#child.removeAllListeners('exit')
        if (report.event === event) resolve(report as Extract<Report, { event: E }>)
        else fail(`said ${report.event}`)()
      })
    })
  }

  async sample(seconds: number): Promise<Sample> {
    const answer = this.wait('sample')
    this.order({ cmd: 'sample', seconds })
    const { sample, tally, problems } = await answer
    this.samples.push(sample)
    this.tally = tally
    this.problems.push(...problems)
    return sample
  }

  async pause(): Promise<void> {
    const paused = this.wait('paused')
    this.order({ cmd: 'pause' })
    await paused
  }

  async stop(): Promise<void> {
    const stopped = this.wait('stopped')
    this.order({ cmd: 'stop' })
    const { left } = await stopped
    if (left.length > 0) this.problems.push(`left after the end: ${left.join(', ')}`)
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

async function soak(minutes: number, maxSlope: number, pauseMs: number): Promise<boolean> {
  const seconds = minutes * 60
  const warmUpSeconds = Math.min(120, seconds / 3)
  const everySeconds = Math.min(10, Math.max(1, seconds / 40))
  const peers = [new Peer('first'), new Peer('second')]
  try {
    for (const peer of peers) peer.addrs = (await peer.wait('listening')).addrs
    const start = performance.now()
    const elapsed = (): number => (performance.now() - start) / 1000
    while (elapsed() < seconds) {
      for (const peer of peers) {
        peer.order({ cmd: 'go', addrs: peers.flatMap((other) => (other === peer ? [] : other.addrs)), pauseMs })
      }
      await sleep(everySeconds * 1000)
      // The other's work ends with our own, so all must rest before anything is measured.
      await Promise.all(peers.map((peer) => peer.pause()))
      const samples = await Promise.all(peers.map((peer) => peer.sample(elapsed())))
      const heaps = samples.map(({ heapBytes, rssBytes, handles, timers }) =>
        [(heapBytes / 2 ** 20).toFixed(2), `(rss ${(rssBytes / 2 ** 20).toFixed(0)})`, `${handles}/${timers}`].join(
          ' ',
        ),
      )
      say(`${elapsed().toFixed(0)} s: heap MiB, handles/timers: ${heaps.join('; ')}`)
    }
    await Promise.all(peers.map((peer) => peer.stop()))
  } finally {
    for (const peer of peers) peer.kill()
  }
  const verdicts = peers.map((peer) => {
    const figures = judge(
      peer.samples.filter((sample) => sample.seconds >= warmUpSeconds),
      maxSlope,
    )
    const all = [...figures.problems, ...peer.problems]
    for (const problem of all.slice(0, 10)) say(`${peer.name}: ${problem}`)
    return { name: peer.name, problems: all.length, figures, done: peer.tally }
  })
  const heapMiBPer10Minutes = Math.max(...verdicts.map((verdict) => verdict.figures.heapMiBPer10Minutes))
  const ok = verdicts.every((verdict) => verdict.problems === 0)
  say(`heap slope ${heapMiBPer10Minutes} MiB in 10 minutes, at most ${maxSlope} allowed: ${ok ? 'good' : 'not good'}`)
  const result = { soak: { minutes, warmUpSeconds, maxMiBPer10Minutes: maxSlope, heapMiBPer10Minutes, ok }, verdicts }
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return ok
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      'max-slope': { type: 'string', default: '1' },
      pause: { type: 'string', default: '5' },
    },
  })
  const number = (name: keyof typeof values): number => {
    const value = Number(values[name])
    if (value >= 0) return value
    throw new TypeError(`--${name} ${values[name]}: want a number`)
  }
  if (!(await soak(number('minutes'), number('max-slope'), number('pause')))) process.exitCode = 1
}

void main().catch((error: unknown) => {
  say(error instanceof Error ? (error.stack ?? error.message) : String(error))
  process.exitCode = 1
})
