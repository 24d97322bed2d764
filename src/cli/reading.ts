/* What cat, get and ls share: a kit on the repo with a peer id for this run, so that a daemon keeps its connections. */
import { createKit, type FetchOptions, type Kit } from '../kit/kit.ts'
import { openRepo } from '../store/repo.ts'
import { findingOptions, readingNetwork } from './network.ts'
import { networkOptions, stopTimeoutMs, type Context, type OptionSpecs } from './args.ts'

export const readingOptions: OptionSpecs = { ...networkOptions, ...findingOptions }

export async function reading(context: Context, work: (kit: Kit, fetch: FetchOptions) => Promise<void>): Promise<void> {
  const { repoPath, peers, timeoutMs, signal, out } = context
  const repo = await openRepo(repoPath, {
    onCorrupt: (_error, cid) => out.note(`block ${cid} in the repo is damaged; asking peers for it`),
  })
  try {
    const kit = await createKit({
      repo,
      dialTimeoutMs: timeoutMs,
      stopTimeoutMs,
      provideEveryMs: false,
      ...(await readingNetwork(context, repo)),
    })
    try {
      await kit.start()
      await work(kit, { timeoutMs, signal, ...(peers.length > 0 && { peers }) })
    } finally {
      await kit.stop()
    }
  } finally {
    await repo.close()
  }
}
