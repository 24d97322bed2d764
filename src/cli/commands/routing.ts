/* `rhiza routing`: who has what, and where they are. */
import { readFile } from 'node:fs/promises'
import { deadline, sleep } from '../../deadline.ts'
import { recordKey, type PeerInfo } from '../../dht/dht.ts'
import type { RecordKey } from '../../dht/validators.ts'
import { systemEnv } from '../../env.ts'
import { UnavailableError } from '../../errors.ts'
import { parseCid } from '../../ipld/cid.ts'
import { decodeRecord, formatName } from '../../ipns/record.ts'
import { noteRoot, toldOf } from '../../kit/announcer.ts'
import { encodeBase } from '../../multibase.ts'
import { PeerId } from '../../peer/id.ts'
import { openRepo } from '../../store/repo.ts'
import { UsageError, networkOptions, type Command, type Context } from '../args.ts'
import { lookingUp, lookupOptions } from '../network.ts'

function countOf(given: unknown): number {
  const count = Number(given ?? 20)
  if (!Number.isSafeInteger(count) || count < 1)
    throw new UsageError(`--count ${JSON.stringify(given)}: want a whole number of at least 1`)
  return count
}

async function printPeer({ out }: Context, { peer, addrs }: PeerInfo): Promise<void> {
  const texts = addrs.map(String)
  await out.result({ peer: String(peer), addrs: texts }, [peer, ...texts.map((addr) => `  ${addr}`)].join('\n'))
}

const findprovs: Command = {
  name: 'routing findprovs',
  summary: 'find who has a block or a file, by its CID',
  usage: 'CID [--count N]',
  options: {
    ...lookupOptions,
    count: { type: 'string', short: 'n', value: 'N', help: 'at most so many (default 20)' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options } = context
    const cid = parseCid(args[0] ?? '')
    const count = countOf(options['count'])
    await lookingUp(context, async ({ dht, signal }) => {
      let found = 0
      for await (const info of dht.findProviders(cid, { signal, count })) {
        found++
        await printPeer(context, info)
      }
      if (found === 0) throw new UnavailableError('not-found', `nobody is known to provide ${cid}`)
    })
  },
}

const findpeer: Command = {
  name: 'routing findpeer',
  summary: 'find where a peer is, by its id',
  usage: 'PEER',
  options: lookupOptions,
  arity: [1, 1],
  async run(context) {
    const wanted = PeerId.parse(context.args[0] ?? '')
    await lookingUp(context, async ({ dht, signal }) => {
      await printPeer(context, await dht.findPeer(wanted, { signal }))
    })
  },
}

/** Between two looks whether serve has done it. */
const lookEveryMs = 100

/** Hands it to the serve of this repo: another node with its key, here for a moment, would confuse its peers. */
const provide: Command = {
  name: 'routing provide',
  summary: 'have the running serve of this repo tell the DHT that it has a CID',
  usage: 'CID...',
  more: 'What is added is told without being asked: this is for what was fetched, and to see that it is done.',
  options: { timeout: { ...networkOptions.timeout, help: 'give up after so long: 500ms, 30s, 5m (default 30s)' } },
  arity: [1, 1_000],
  async run({ args, out, repoPath, timeoutMs, signal }) {
    const cids = args.map((text) => parseCid(text))
    const env = systemEnv()
    const bound = deadline({ env, timeoutMs, what: 'waiting for rhiza serve on this repo to reach the DHT', signal })
    const repo = await openRepo(repoPath)
    try {
      const records = await repo.records()
      const since = env.clock.wallTime()
      for (const cid of cids) {
        if (!(await repo.blocks.has(cid)))
          throw new UnavailableError('not-found', `block ${cid} is not in the repo: add it, or get it first`)
        await noteRoot(records, cid)
      }
      for (const cid of cids) {
        let done = await toldOf(records, cid)
        for (; done === undefined || done.at < since; done = await toldOf(records, cid))
          await sleep(env, lookEveryMs, bound.signal)
        const { peers } = done
        await out.result({ cid: String(cid), peers }, `provided ${cid} to ${peers} ${peers === 1 ? 'peer' : 'peers'}`)
      }
    } finally {
      bound.done()
      await repo.close()
    }
  },
}

/** Throws UsageError. */
function keyOf(text: string): { namespace: string; peer: PeerId; key: RecordKey } {
  const [, namespace = '', name = ''] = /^\/(ipns|pk)\/([^/]+)$/.exec(text) ?? []
  if (name === '') throw new UsageError(`${JSON.stringify(text)} is no key of a record: want /ipns/NAME or /pk/PEER`)
  const peer = PeerId.parse(name)
  return { namespace, peer, key: recordKey(namespace, peer.bytes) }
}

const get: Command = {
  name: 'routing get',
  summary: 'write the record under a key to standard output',
  usage: '/ipns/NAME or /pk/PEER',
  options: lookupOptions,
  arity: [1, 1],
  async run(context) {
    const { args, out } = context
    const { namespace, peer, key } = keyOf(args[0] ?? '')
    await lookingUp(context, async ({ dht, signal }) => {
      const value = await dht.get(key, { signal })
      if (!out.json) {
        await out.write(value)
        return
      }
      const name = namespace === 'ipns' ? formatName(peer) : String(peer)
      const read = namespace === 'ipns' ? { value: decodeRecord(value).value } : {}
      await out.result({ key: `/${namespace}/${name}`, base64: encodeBase('base64', value), ...read }, '')
    })
  },
}

async function readAll(path: string): Promise<Uint8Array> {
  if (path !== '-') return readFile(path)
  const chunks: Uint8Array[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array)
  return Buffer.concat(chunks)
}

const put: Command = {
  name: 'routing put',
  summary: 'store a record, of a file or of standard input, under its key',
  usage: '/ipns/NAME|/pk/PEER FILE|-',
  more: 'Only what is valid is taken: /ipns wants a signed record, /pk the public key of the peer.',
  options: lookupOptions,
  arity: [2, 2],
  async run(context) {
    const [text = '', file = ''] = context.args
    const { key } = keyOf(text)
    const value = await readAll(file)
    await lookingUp(context, async ({ dht, signal }) => {
      const peers = await dht.put(key, value, { signal })
      await context.out.result({ key: text, peers }, `stored ${text} at ${peers} peers`)
    })
  },
}

export const routing: readonly Command[] = [findprovs, findpeer, provide, get, put]
