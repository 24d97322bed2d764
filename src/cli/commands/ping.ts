import { createNode } from '../../node.ts'
import { UsageError, multiaddrOf, networkOptions, parseDuration, stopTimeoutMs, type Command } from '../args.ts'

export const ping: Command = {
  name: 'ping',
  summary: 'measure the round trip to a peer',
  usage: 'ADDR',
  more: 'Example: rhiza ping /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...',
  options: {
    count: { type: 'string', short: 'n', value: 'N', help: 'rounds (default 5)' },
    interval: { type: 'string', short: 'i', value: 'TIME', help: 'pause between rounds (default 1s)' },
    timeout: { ...networkOptions.timeout, help: 'for the dial and for each round: 500ms, 30s (default 30s)' },
  },
  arity: [1, 1],
  async run({ args, options, out, signal, timeoutMs }) {
    const addr = multiaddrOf('ADDR', args[0] ?? '')
    const count = Number(options['count'] ?? 5)
    if (!Number.isInteger(count) || count < 1)
      throw new UsageError(`--count ${JSON.stringify(options['count'])}: want a whole number of rounds`)
    const intervalMs = parseDuration(String(options['interval'] ?? '1s'))
    const node = await createNode({ stopTimeoutMs })
    const times: number[] = []
    try {
      await node.start()
      const connection = await node.dial(addr, { signal, timeoutMs })
      out.note(`ping ${connection.peer} at ${connection.remoteAddr}`)
      for await (const rttMs of node.ping(connection.peer, { count, intervalMs, timeoutMs, signal })) {
        times.push(rttMs)
        await out.result({ rttMs }, `${rttMs.toFixed(3)} ms`)
      }
    } finally {
      await node.stop()
    }
    const [min, avg, max] = [Math.min(...times), times.reduce((a, b) => a + b, 0) / times.length, Math.max(...times)]
    await out.result(
      { count: times.length, minMs: min, avgMs: avg, maxMs: max },
      `${times.length} rounds: min ${min.toFixed(3)}, avg ${avg.toFixed(3)}, max ${max.toFixed(3)} ms`,
    )
  },
}
