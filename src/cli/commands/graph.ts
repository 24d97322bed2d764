/* `rhiza graph get`: a part of a graph, from one peer by one GraphSync request, as a CAR. */
import { ClosedError, UnavailableError, asError, errorCode } from '../../errors.ts'
import { parseCid, type CID } from '../../ipld/cid.ts'
import { parseSelector, printSelector, selectorFromBytes, selectorToBytes } from '../../ipld/selector-parse.ts'
import type { Selector } from '../../ipld/selector.ts'
import { selectorFromText } from '../../ipld/selectors.ts'
import { traverse } from '../../ipld/traverse.ts'
import { createKit } from '../../kit/kit.ts'
import {
  extension,
  protocolId,
  status,
  type Graphsync,
  type GraphsyncRequest,
  type GraphsyncResult,
  type MissingBlock,
} from '../../protocols/graphsync/graphsync.ts'
import type { BlockPair, Blockstore } from '../../store/blocks.ts'
import { openRepo } from '../../store/repo.ts'
import { UsageError, networkOptions, stopTimeoutMs, type Command, type Context } from '../args.ts'
import { carTarget, outputOption, writeCarTo } from '../car-file.ts'
import { formatBytes, printable } from '../output.ts'

/** The exit code of a CAR that is written and lacks blocks. */
const partialExitCode = 2
/** Of the blocks that lack, those that are named. */
const namedMissing = 10

const blocksOf = (count: number): string => `${count} ${count === 1 ? 'block' : 'blocks'}`

/** The selector as the peer will read it: DAG-CBOR sorts the fields. Throws UsageError. */
function selectorOf(text: string): Selector {
  try {
    return selectorFromBytes(selectorToBytes(parseSelector(selectorFromText(text))))
  } catch (error) {
    const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text)
    throw new UsageError(`--selector ${shown}: ${asError(error).message}; see rhiza graph get --help`)
  }
}

/** How many of the first links the repo has the blocks of: the peer need not send them. */
async function heldFirst(blocks: Blockstore, root: CID, selector: Selector, signal: AbortSignal): Promise<number> {
  let held = 0
  const load = (cid: CID): Promise<Uint8Array | undefined> => blocks.get(cid, { signal })
  for await (const step of traverse(root, selector, { load, verify: false, signal })) {
    if (step.kind === 'missing') break
    if (step.kind === 'block') held++
  }
  return held
}

/** What to do about a status that ended the request. */
const advice: Readonly<Record<number, string>> = {
  [status.rejected]: 'it may give less: --selector depth:2 or path:a/b; or ask another peer with --peer',
  [status.failedBusy]: 'try again later, or ask another peer with --peer',
  [status.failedUnknown]: 'it may be more than the peer gives at once: ask for less with --selector',
  [status.failedLegal]: 'ask another peer with --peer',
  [status.failedNotFound]: 'ask another peer with --peer',
  [status.cancelled]: 'ask again: what came is in the repo and is not sent twice',
}

/** The same error, with the next step where it is known. */
function advised(error: Error, ended: number, peer: string): Error {
  const code = errorCode(error)
  if (code === 'no-protocol')
    return new UnavailableError(
      code,
      `${peer} does not speak GraphSync (${protocolId}), as rhiza serve does: name another --peer, or ask by Bitswap with rhiza dag export --selector`,
    )
  const next = advice[ended]
  return next !== undefined && (code === 'refused' || code === 'not-found')
    ? new UnavailableError(code, `${error.message}; ${next}`)
    : error
}

interface Part {
  /** Each once. */
  blocks: number
  bytes: number
  /** Of them, those that the peer sent. */
  received: number
  missing: MissingBlock[]
  result: GraphsyncResult
}

/** Writes the CAR as the blocks come. An interrupt tells the peer to stop before anything is torn down. */
async function fetchPart(
  { out, signal }: Pick<Context, 'out' | 'signal'>,
  target: string | undefined,
  root: CID,
  request: GraphsyncRequest,
): Promise<Part> {
  const progress = out.progress('fetching')
  const part = { blocks: 0, bytes: 0, received: 0 }
  const missing: MissingBlock[] = []
  const written = new Set<string>()
  async function* drawn(): AsyncGenerator<BlockPair> {
    for await (const event of request) {
      if (event.kind === 'missing') missing.push(event)
      if (event.kind === 'note' && event.status === status.paused) out.note('the peer has paused the request')
      if (event.kind !== 'block') continue
      const { cid, bytes, fromPeer } = event
      const key = cid.toString()
      if (written.has(key)) continue
      written.add(key)
      part.blocks++
      part.bytes += bytes.length
      if (fromPeer) part.received++
      progress.add(bytes.length, 1)
      yield { cid, bytes }
    }
    // Before the CAR is whole: it rejects where it did not end well.
    await request.done
  }
  let cancelled: Promise<boolean> | undefined
  const cancel = (): void => void (cancelled = request.cancel())
  signal.addEventListener('abort', cancel, { once: true })
  try {
    signal.throwIfAborted()
    await writeCarTo(target, out, root, drawn())
    return { ...part, missing, result: await request.done }
  } catch (error) {
    await (cancelled ?? request.cancel())
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', cancel)
    progress.done()
  }
}

/** What was written, and what is not in it. */
async function tell({ out }: Context, target: string | undefined, root: CID, part: Part): Promise<void> {
  const { blocks, bytes, received, missing, result } = part
  for (const { cid, path } of missing.slice(0, namedMissing)) out.note(`missing  ${cid}  at /${path.join('/')}`)
  if (missing.length > namedMissing) out.note(`missing  ${missing.length - namedMissing} more`)
  if (result.matches === 0 && missing.length === 0)
    out.note(
      'the selector matches nothing there: the CAR has the blocks on the way as far as it goes; names in a UnixFS folder want unixfs:PATH (rhiza ls CID lists them)',
    )
  if (target !== undefined) {
    const here = received < blocks ? `, ${blocks - received} of them were in the repo` : ''
    const record = { path: target, cid: root.toString(), blocks, bytes, received, matches: result.matches }
    await out.result(
      { ...record, missing: missing.map(({ cid, path }) => ({ cid: cid.toString(), path: path.join('/') })) },
      `${printable(target)}  ${blocksOf(blocks)}, ${formatBytes(bytes)}${here}`,
    )
  }
  if (missing.length === 0) return
  out.error(
    'partial',
    `the peer has not got ${blocksOf(missing.length)} of what was asked for, the CAR has the rest; another --peer may have them: what is in the repo is not fetched again`,
  )
  process.exitCode = partialExitCode
}

/** Asks, and stops all that it started. */
async function ask(
  graphsync: Graphsync,
  context: Context,
  asked: { root: CID; selector: Selector; peer: string; target: string | undefined; firstBlocks: number },
): Promise<Part> {
  const { root, selector, peer, target, firstBlocks } = asked
  const request = graphsync.request(peer, root, printSelector(selector), {
    nodes: false,
    ...(firstBlocks > 0 && { extensions: { [extension.doNotSendFirstBlocks]: firstBlocks } }),
  })
  try {
    return await fetchPart(context, target, root, request)
  } catch (thrown) {
    const error = asError(thrown)
    throw context.signal.aborted ? error : advised(error, request.status, peer)
  }
}

const get: Command = {
  name: 'graph get',
  summary: 'fetch a part of a graph by one GraphSync request, as a CAR',
  usage: 'CID --selector TEXT --peer ADDR [-o FILE]',
  more: [
    'One peer is asked once for all that the selector goes through, and sends exactly those blocks, each checked when it',
    'comes: no round trip per level. A CARv1 in the order of the walk, each block once; to standard output, or to FILE, which',
    'is there whole or not at all. What is fetched stays in the repo: a get that was interrupted goes on where it was.',
    '',
    'Selectors:',
    '  all, root, leaves    everything below the CID; its block alone; the raw leaves of a file',
    '  depth:3, levels:3    so many segments of a path deep; so many links of dag-pb',
    '  path:a/b/c           what lies at the path, through maps, lists and links',
    '  a/*, a/**            every child of a; a and everything below it',
    '  unixfs:dir/file      a file by its name in a directory; dir/file[0:1024] a range of its bytes; dir/** all below',
    '  {"a":{">":{".":{}}}} an IPLD selector as DAG-JSON, bare or in its envelope',
    '',
    'Exit code 0: all of it; 2: the CAR is written, but lacks blocks that the peer has not got, which are named; 1: anything',
    'else. Ctrl-C cancels the request at the peer.',
  ].join('\n'),
  options: {
    peer: { ...networkOptions.peer, help: 'whom to ask, one: /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo...' },
    selector: { type: 'string', value: 'TEXT', help: 'what of the graph (default all)' },
    ...outputOption,
    timeout: networkOptions.timeout,
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out, signal, repoPath, timeoutMs, peers } = context
    const root = parseCid(args[0] ?? '')
    const selector = selectorOf(typeof options['selector'] === 'string' ? options['selector'] : 'all')
    const [peer, ...others] = peers
    if (peer === undefined) throw new UsageError('ask whom? want --peer ADDR, an address that rhiza serve prints')
    if (others.length > 0) throw new UsageError('one request goes to one peer: want one --peer')
    const target = carTarget(options)
    const repo = await openRepo(repoPath, {
      onCorrupt: (_error, cid) => out.note(`block ${cid} in the repo is damaged; asking the peer for it`),
    })
    try {
      const patience = { openTimeoutMs: timeoutMs, idleTimeoutMs: timeoutMs, pausedTimeoutMs: timeoutMs }
      const kit = await createKit({
        repo,
        graphsync: { serve: false, ...patience },
        dialTimeoutMs: timeoutMs,
        stopTimeoutMs,
        provideEveryMs: false,
      })
      try {
        await kit.start()
        const { graphsync } = kit
        if (graphsync === undefined)
          throw new ClosedError('graphsync is not started', { by: 'local', code: 0 }, 'not-started')
        const firstBlocks = await heldFirst(repo.blocks, root, selector, signal)
        const part = await ask(graphsync, context, { root, selector, peer, target, firstBlocks })
        await tell(context, target, root, part)
      } finally {
        await kit.stop()
      }
    } finally {
      await repo.close()
    }
  },
}

export const graph: readonly Command[] = [get]
