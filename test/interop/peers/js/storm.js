import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** Messages of topics that begin so are counted, not told. */
export const stormTopics = 'storm/'

const cpuMs = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** The storm that is on; deliveries of others are not counted. */
let running = { number: 0 }

/** A message of a storm: its number and the message's own, then anything. */
export function counted(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const { number, sent, missing, latencyMs, wake } = running
  if (view.getUint32(0) !== number) return
  const i = view.getUint32(4)
  latencyMs.push(performance.now() - sent[i])
  if (--missing[i] > 0) return
  running.done++
  wake()
}

/** Commands over all nodes of the process: `nodes()` gives them. */
export function stormCommands(nodes) {
  const services = () => nodes().map(({ services: { pubsub } }) => pubsub)

  return {
    usage: async () => ({
      cpuMs: cpuMs(),
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024,
    }),
    stormJoin: async ({ count = 1, signal }) => {
      const all = nodes()
      for (const [i, node] of all.entries()) {
        for (const other of all.slice(i + 1)) await other.dial(node.getMultiaddrs()[0], { signal })
      }
      const last = `${stormTopics}${count - 1}`
      for (let n = 0; n < count; n++) for (const pubsub of services()) pubsub.subscribe(`${stormTopics}${n}`)
      for (const pubsub of services()) {
        while (pubsub.getSubscribers(last).length < all.length - 1) await sleep(10, undefined, { signal })
      }
      // Meshes are there after a heartbeat or two.
      await sleep(3000, undefined, { signal })
      const degrees = services().map((pubsub) => pubsub.getMeshPeers(last).length)
      return { meshDegree: degrees.reduce((sum, degree) => sum + degree, 0) / all.length }
    },
    storm: async ({ count, size, parallel = 1, perSecond, signal }) => {
      const all = services()
      const data = crypto.getRandomValues(new Uint8Array(Math.min(size, 65_536)))
      let waiting
      running = {
        number: running.number + 1,
        sent: [],
        missing: Array.from({ length: count }, () => all.length - 1),
        latencyMs: [],
        done: 0,
        wake: () => waiting?.(),
      }
      const { number, sent, latencyMs } = running
      // A message that is lost ends the storm with the command's time.
      const delivered = () => new Promise((resolve) => (waiting = resolve))
      signal.addEventListener('abort', () => waiting?.(), { once: true })
      const [cpu, start] = [cpuMs(), performance.now()]
      const publishing = new Set()
      for (let i = 0; i < count && !signal.aborted; i++) {
        if (perSecond !== undefined) {
          const due = start + (i * 1000) / perSecond - performance.now()
          if (due > 0) await sleep(due)
        } else {
          while (i - running.done >= parallel && !signal.aborted) await delivered()
        }
        const own = new Uint8Array(size)
        for (let at = 0; at < size; at += data.length) own.set(data.subarray(0, size - at), at)
        const view = new DataView(own.buffer)
        view.setUint32(0, number)
        view.setUint32(4, i)
        sent[i] = performance.now()
        const publish = all[i % all.length].publish(`${stormTopics}0`, own).then(() => publishing.delete(publish))
        publishing.add(publish)
      }
      await Promise.all(publishing)
      while (running.done < count && !signal.aborted) await delivered()
      const seconds = (performance.now() - start) / 1000
      running = { number: number + 1 }
      return { seconds, cpuMs: cpuMs() - cpu, latencyMs, expected: count * (all.length - 1) }
    },
  }
}
