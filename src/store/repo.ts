/*
 * The directory in which a node keeps what must outlive it (Node only):
 *   version    the layout's number, written last when the repo is made: with it the repo is complete
 *   identity   the private key (peer/identity.ts), made when first asked for
 *   blocks/    see disk-blocks.ts
 *   keys/      see keystore.ts, made when the first key is
 *   records.sqlite (and its -wal and -shm)   see sqlite-records.ts, made when first asked for
 * Several processes may have one repo open at once.
 */
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fromUtf8 } from '../bytes.ts'
import type { Crypto } from '../crypto/crypto.ts'
import { StorageError } from '../errors.ts'
import { systemEnv, type Env } from '../env.ts'
import { loadOrCreateIdentity } from '../peer/identity.ts'
import type { PrivateKey } from '../peer/keys.ts'
import type { Blockstore } from './blocks.ts'
import { openDiskBlocks, type DiskBlocksOptions } from './disk-blocks.ts'
import type { RecordStore } from './records.ts'
import { Keystore } from './keystore.ts'
import { openSqliteRecords } from './sqlite-records.ts'
import { makeDirectory, storing, sweepTemporary, systemCode, writeDurable } from './durable.ts'

/** The only layout so far. */
export const repoVersion = 1

export interface RepoOptions {
  /** Default: the platform's. */
  crypto?: Crypto
  env?: Env
  /** Told once about each block on the disk that no longer hashes to its CID. */
  onCorrupt?: DiskBlocksOptions['onCorrupt']
}

export interface Repo {
  readonly path: string
  readonly blocks: Blockstore
  /** Further keys, by name. */
  readonly keys: Keystore
  /**
   * The repo's private key, made by the first call on a new repo. Rejects with StorageError `corrupt` for a damaged
   * identity file, which stays as it is.
   */
  identity(): Promise<PrivateKey>
  /**
   * Small things to remember: where peers are, and the like. Made by the first call. Rejects with StorageError, `corrupt`
   * for a damaged file, which stays as it is; with UnavailableError `unsupported` on a runtime without node:sqlite.
   */
  records(): Promise<RecordStore>
  /** Closes the block store and the records. Idempotent. */
  close(): Promise<void>
}

/**
 * Opens the repo at `path`; makes one (mode 0700) when there is nothing. Rejects with StorageError: `exists` for a
 * directory that holds something else, `unsupported` for another version, `corrupt` for an unreadable version file,
 * `disk-full`, `not-permitted` and `io` as the file system says.
 */
export async function openRepo(path: string, options: RepoOptions = {}): Promise<Repo> {
  const { crypto, env = systemEnv(), onCorrupt } = options
  const version = await readVersion(path)
  if (version === undefined) await create(path)
  else checkVersion(path, version)
  await sweepTemporary(path, env.clock.wallTime())
  const blocks = await openDiskBlocks(join(path, 'blocks'), { env, ...(onCorrupt === undefined ? {} : { onCorrupt }) })
  let records: Promise<RecordStore> | undefined
  return {
    path,
    blocks,
    keys: new Keystore(join(path, 'keys'), crypto),
    identity: () => loadOrCreateIdentity(join(path, 'identity'), crypto),
    records: () => (records ??= openSqliteRecords(join(path, 'records.sqlite'), { env })),
    async close() {
      await blocks.close()
      const opened = await Promise.allSettled([records])
      for (const one of opened) if (one.status === 'fulfilled') await one.value?.close()
    },
  }
}

const versionBytes = 32

/** Undefined when there is no version file. */
async function readVersion(path: string): Promise<string | undefined> {
  const file = join(path, 'version')
  return storing(file, async () => {
    try {
      return (await readFile(file, 'latin1')).slice(0, versionBytes)
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined
      throw error
    }
  })
}

function checkVersion(path: string, text: string): void {
  const file = join(path, 'version')
  if (!/^\d{1,9}\n?$/.test(text))
    throw new StorageError('corrupt', file, 'this holds no repo version: restore it or choose another repo')
  const version = Number(text)
  if (version !== repoVersion)
    throw new StorageError(
      'unsupported',
      path,
      `the repo has version ${version}, this rhiza knows version ${repoVersion}: use another rhiza or another repo`,
    )
}

async function create(path: string): Promise<void> {
  await storing(path, async () => {
    await makeDirectory(path, 0o700)
    // Another process may be making the same repo right now: its files are not foreign.
    const foreign = (await readdir(path)).find(
      (name) => !/^(version|identity|blocks$|records\.sqlite)|\.tmp$/.test(name),
    )
    if (foreign !== undefined)
      throw new StorageError('exists', path, `this is no rhiza repo, it holds "${foreign}": choose another directory`)
    await makeDirectory(join(path, 'blocks'))
  })
  await writeDurable(join(path, 'version'), fromUtf8(`${repoVersion}\n`))
}
