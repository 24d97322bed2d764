import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { noteRoot } from '../../kit/announcer.ts'
import { createKit, type Kit } from '../../kit/kit.ts'
import type { RecordStore } from '../../store/records.ts'
import { openRepo } from '../../store/repo.ts'
import { profiles, type ProfileName } from '../../unixfs/build.ts'
import type { AddedEntry } from '../../unixfs/import.ts'
import { UsageError, type Command, type Context } from '../args.ts'
import { contentOf, entriesBelow, extentOf } from '../files.ts'
import { recordsOf } from '../network.ts'
import { printable, type Progress } from '../output.ts'

function profileOf(given: unknown): ProfileName {
  const names = Object.keys(profiles)
  if (given === undefined) return 'unixfs-v1-2025'
  if (typeof given !== 'string' || !names.includes(given))
    throw new UsageError(`--profile ${JSON.stringify(given)}: want ${names.join(' or ')}`)
  return given as ProfileName
}

interface Job {
  kit: Kit
  context: Context
  profile: ProfileName
  progress: Progress
  quiet: boolean
  hidden: boolean
  /** Where a serve on this repo looks for what to tell the DHT. */
  records: RecordStore | undefined
}

async function print(
  { context, quiet }: Job,
  name: string,
  { cid, size }: { cid: { toString(): string }; size: number },
): Promise<void> {
  const text = quiet ? cid.toString() : `added ${cid} ${printable(name)}`
  await context.out.result({ name, cid: cid.toString(), size }, text)
}

async function addPath(job: Job, path: string): Promise<void> {
  const { kit, context, profile, progress, hidden, records } = job
  const { signal } = context
  let seen = 0
  const onProgress = (bytes: number): void => {
    progress.add(bytes - seen)
    seen = bytes
  }
  if (path === '-') {
    const added = await kit.add(process.stdin, { profile, onProgress, signal })
    if (records !== undefined) await noteRoot(records, added.cid)
    await print(job, '-', added)
    return
  }
  const name = basename(resolve(path))
  if (!(await stat(path)).isDirectory()) {
    const added = await kit.add(contentOf(path), { profile, onProgress, signal })
    if (records !== undefined) await noteRoot(records, added.cid)
    await print(job, name, added)
    return
  }
  const entries: AddedEntry[] = []
  const root = await kit.addDirectory(entriesBelow(path, hidden), {
    profile,
    onProgress,
    signal,
    // The root is printed below, when everything is durable: until then nothing is promised.
    onEntry: (entry) => void (entry.path === '' || entries.push(entry)),
  })
  if (records !== undefined) await noteRoot(records, root.cid)
  for (const entry of entries) await print(job, `${name}/${entry.path}`, entry)
  await print(job, name, root)
}

export const add: Command = {
  name: 'add',
  summary: 'add files to the repo and print their CIDs, the root last',
  usage: '[-r] PATH...',
  more: 'A CID is printed when its blocks are safe on disk. PATH - reads standard input.',
  options: {
    recursive: { type: 'boolean', short: 'r', help: 'add directories with everything in them' },
    hidden: { type: 'boolean', short: 'H', help: 'also files whose names begin with a dot' },
    quiet: { type: 'boolean', short: 'q', help: 'print CIDs alone' },
    profile: {
      type: 'string',
      value: 'NAME',
      help: 'unixfs-v1-2025 (default) or unixfs-v0-2015 (CIDv0, as older Kubo)',
    },
  },
  arity: [1, 10_000],
  async run(context) {
    const { args, options, out, repoPath, signal } = context
    const profile = profileOf(options['profile'])
    const hidden = options['hidden'] === true
    for (const path of args) {
      if (path === '-') continue
      if ((await stat(path)).isDirectory() && options['recursive'] !== true)
        throw new UsageError(`${path} is a directory; add it with rhiza add -r`)
    }
    const repo = await openRepo(repoPath)
    const progress = out.progress('adding')
    try {
      const kit = await createKit({ repo })
      const records = await recordsOf(repo)
      const extents = await Promise.all(args.flatMap((path) => (path === '-' ? [] : [extentOf(path, hidden)])))
      if (!args.includes('-')) progress.total(extents.reduce((sum, { bytes }) => sum + bytes, 0))
      for (const path of args) {
        signal.throwIfAborted()
        await addPath({ kit, context, profile, progress, quiet: options['quiet'] === true, hidden, records }, path)
      }
      progress.done()
      const leftOut = extents.reduce((sum, extent) => sum + extent.leftOut, 0)
      if (leftOut > 0)
        out.note(
          `left out ${leftOut} ${leftOut === 1 ? 'name that begins' : 'names that begin'} with a dot; --hidden adds them`,
        )
    } finally {
      progress.done()
      await repo.close()
    }
  },
}
