/* Blocks of any format: one as JSON, a whole DAG into a CAR and out of one. */
import { UnavailableError } from '../../errors.ts'
import { readCar } from '../../ipld/car.ts'
import { parseCid, type CID } from '../../ipld/cid.ts'
import { codecs } from '../../ipld/codecs.ts'
import { childOf, isLink, type IpldNode } from '../../ipld/model.ts'
import { prefetching } from '../../ipld/prefetch.ts'
import { parseSelector } from '../../ipld/selector-parse.ts'
import { selectorFromText } from '../../ipld/selectors.ts'
import { traverse } from '../../ipld/traverse.ts'
import type { BlockPair } from '../../store/blocks.ts'
import { openRepo } from '../../store/repo.ts'
import { fetchBlock, type BlockSource } from '../../unixfs/blocks.ts'
import { formatPath, parsePath } from '../../unixfs/path.ts'
import { UsageError, type Command } from '../args.ts'
import { carTarget, outputOption, writeCarTo } from '../car-file.ts'
import { contentOf } from '../files.ts'
import { escaped, formatBytes, printable, type Progress } from '../output.ts'
import { reading, readingOptions } from '../reading.ts'

interface Found {
  cid: CID
  node: IpldNode
  /** The block, where the node is all of it. */
  block: Uint8Array | undefined
}

/** Follows the path through the data model, and through links. */
async function find(source: BlockSource, root: CID, segments: readonly string[], signal: AbortSignal): Promise<Found> {
  let found: Found = { cid: root, node: root, block: undefined }
  const load = async (): Promise<void> => {
    while (isLink(found.node)) {
      const cid = found.node
      const block = await fetchBlock(source, cid, { signal })
      found = { cid, node: codecs.decode(cid, block), block }
    }
  }
  await load()
  for (const [i, name] of segments.entries()) {
    const node = childOf(found.node, name)
    if (node === undefined)
      throw new UnavailableError('not-found', `no ${JSON.stringify(name)} in ${formatPath(root, segments.slice(0, i))}`)
    found = { ...found, node, block: undefined }
    await load()
  }
  return found
}

const outputs = codecs.names()

const get: Command = {
  name: 'dag get',
  summary: 'write a block as JSON',
  usage: 'CID[/PATH]',
  more: [
    'PATH goes through maps, lists and links: CID/Links/0/Hash, CID/name/of/a/field. A link at its end is followed.',
    'Links are {"/":"CID"}, bytes {"/":{"bytes":"BASE64"}} (dag-json). --output-codec raw writes the bytes of the',
    'block as they are, or those that PATH leads to.',
  ].join('\n'),
  options: {
    ...readingOptions,
    'output-codec': { type: 'string', value: 'NAME', help: `${outputs.join(', ')} (default dag-json)` },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out, signal } = context
    const { 'output-codec': name = 'dag-json' } = options
    const codec = codecs.byName(String(name))
    if (codec === undefined) throw new UsageError(`--output-codec ${JSON.stringify(name)}: want ${outputs.join(', ')}`)
    const from = args[0] ?? ''
    const { cid, segments } = parsePath(from)
    await reading(context, async (kit, fetch) => {
      const source = await kit.open(cid, fetch)
      try {
        const { node, block } = await find(source, cid, segments, signal)
        const bytes = codec.name === 'raw' && block !== undefined ? block : codec.encode(node)
        // For eyes, or one object a line, it is still the same JSON; for programs it is the very bytes of the codec.
        const shown = codec.name.endsWith('json') && (out.json || process.stdout.isTTY)
        await out.write(shown ? `${escaped(Buffer.from(bytes).toString())}\n` : bytes)
      } finally {
        await source.end()
      }
    })
  },
}

/** The same blocks, counted. */
async function* counting(
  blocks: AsyncIterable<BlockPair>,
  progress: Progress,
  each: (pair: BlockPair) => void,
): AsyncGenerator<BlockPair> {
  for await (const pair of blocks) {
    each(pair)
    progress.add(pair.bytes.length)
    yield pair
  }
}

const importCar: Command = {
  name: 'dag import',
  summary: 'put the blocks of a CAR into the repo',
  usage: 'FILE|-',
  more: [
    'Prints the roots, and how many blocks there were. CARv1 and CARv2; each block must hash to its CID. What comes before',
    'a corrupt section stays in the repo.',
  ].join('\n'),
  options: {},
  arity: [1, 1],
  async run({ args, out, repoPath, signal }) {
    const [file = ''] = args
    const repo = await openRepo(repoPath)
    const progress = out.progress('importing')
    try {
      const car = await readCar(file === '-' ? process.stdin : contentOf(file), { signal })
      const missing = new Set(car.roots.map(String))
      let [blocks, bytes] = [0, 0]
      await repo.blocks.putMany(
        counting(car.blocks, progress, (pair) => {
          missing.delete(String(pair.cid))
          blocks++
          bytes += pair.bytes.length
        }),
        { signal },
      )
      progress.done()
      const roots = car.roots.map(String)
      for (const root of missing) {
        if (!(await repo.blocks.has(parseCid(root)))) out.note(`root ${root} is neither in the CAR nor in the repo`)
      }
      await out.result(
        { roots, version: car.version, blocks, bytes },
        [...roots, `${blocks} ${blocks === 1 ? 'block' : 'blocks'}, ${formatBytes(bytes)}`].join('\n'),
      )
    } finally {
      progress.done()
      await repo.close()
    }
  },
}

const exportCar: Command = {
  name: 'dag export',
  summary: 'write a DAG as a CAR',
  usage: 'CID [-o FILE]',
  more: [
    'A CARv1 with the blocks in depth-first order, each once. To standard output, unless that is a terminal.',
    'With a selector only the blocks on its way: all, root, depth:2, path:a/b, unixfs:dir/file, or dag-json.',
  ].join('\n'),
  options: {
    ...readingOptions,
    ...outputOption,
    selector: { type: 'string', value: 'TEXT', help: 'what of the DAG (default all)' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out, signal } = context
    const root = parseCid(args[0] ?? '')
    const { selector: text } = options
    const target = carTarget(options)
    const selector = parseSelector(selectorFromText(typeof text === 'string' ? text : 'all'))
    await reading(context, async (kit, fetch) => {
      const source = await kit.open(root, fetch)
      const progress = out.progress('exporting')
      let [blocks, bytes] = [0, 0]
      const load = (cid: CID): Promise<Uint8Array> => fetchBlock(source, cid, { signal })
      // Whoever asks for less than all must not fetch more.
      const everything = text === undefined
      async function* drawn(): AsyncGenerator<BlockPair> {
        const written = new Set<string>()
        const steps = traverse(root, selector, {
          load: everything ? prefetching({ load }) : load,
          visitOnce: everything,
          // The source has done it.
          verify: false,
          signal,
        })
        for await (const step of steps) {
          if (step.kind !== 'block' || written.has(String(step.cid))) continue
          written.add(String(step.cid))
          blocks++
          bytes += step.bytes.length
          progress.add(step.bytes.length)
          yield step
        }
      }
      try {
        await writeCarTo(target, out, root, drawn())
      } finally {
        progress.done()
        await source.end()
      }
      if (target !== undefined)
        await out.result(
          { path: target, cid: root.toString(), blocks, bytes },
          `${printable(target)}  ${blocks} ${blocks === 1 ? 'block' : 'blocks'}, ${formatBytes(bytes)}`,
        )
    })
  },
}

export const dag: readonly Command[] = [get, importCar, exportCar]
