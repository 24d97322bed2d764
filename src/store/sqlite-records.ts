/*
 * Records in one SQLite file (node:sqlite, Node only). Write-ahead log with synchronous FULL: what is acknowledged
 * survives a power cut. Writes of one turn of the event loop are one transaction, so that they share its sync.
 * Several processes may have one file open at once. A file that is damaged, foreign or newer is left as it is.
 * Known limit: node:sqlite has no asynchronous calls, a sync of the disk holds up the event loop.
 */
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from 'node:sqlite'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { StorageError, UnavailableError, asError, type ErrorCode } from '../errors.ts'
import { systemEnv, type Env } from '../env.ts'
import { makeDirectory, storing } from './durable.ts'
import {
  checkChanges,
  checkKey,
  recordsClosed,
  type RecordChange,
  type RecordOptions,
  type RecordStore,
  type StoredRecord,
} from './records.ts'

export interface SqliteRecordsOptions {
  env?: Env
}

/** "rhiz": tells our files from those of other programs. */
const applicationId = 0x7268697a
const schemaVersion = 1
/** How long another process may hold the file: it holds up our event loop. */
const busyTimeoutMs = 1_000
/** Rows read at a time by entries(). */
const pageRows = 256
/** Between two looks for what has expired. */
const sweepIntervalMs = 10 * 60_000

const schema = `
  CREATE TABLE records (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL, expires_at INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion}`

/** By SQLite's primary result code. */
const kinds: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  3: ['not-permitted', 'no permission: change the owner or mode of the records'],
  5: ['io', 'another process holds the records: end it or try again'],
  6: ['io', 'another process holds the records: end it or try again'],
  8: ['not-permitted', 'the records are read-only: change their owner or mode'],
  11: ['corrupt', 'the records are damaged: restore them from a backup, or move the file away to start anew'],
  13: ['disk-full', 'the disk is full: free some space'],
  14: ['not-permitted', 'the records can not be opened: look at what is there and at its owner and mode'],
  26: ['corrupt', 'this holds no records but something else: restore it, or move the file away to start anew'],
}

function storageError(path: string, cause: unknown): Error {
  if (!(cause instanceof Error && 'errcode' in cause && typeof cause.errcode === 'number')) return asError(cause)
  const [code, message] = kinds[cause.errcode & 0xff] ?? ['io', `SQLite answered ${cause.message}`]
  return new StorageError(code, path, message, { cause })
}

/** Node 22 warns of node:sqlite's being experimental when it is first used: that warning, and no other, is left out. */
function loadSqlite(): typeof import('node:sqlite') {
  const before = Object.getOwnPropertyDescriptor(process, 'emitWarning')
  const emit = process.emitWarning.bind(process) as (...args: unknown[]) => void
  process.emitWarning = (warning: string | Error, ...rest: unknown[]): void => {
    if (!/SQLite is an experimental feature/.test(String(warning))) emit(warning, ...rest)
  }
  try {
    // Other runtimes answer undefined, or throw.
    const sqlite = process.getBuiltinModule('node:sqlite') as typeof import('node:sqlite') | undefined
    if (sqlite !== undefined) return sqlite
  } catch {
    // Said below.
  } finally {
    if (before !== undefined) Object.defineProperty(process, 'emitWarning', before)
  }
  throw new UnavailableError('unsupported', 'this runtime has no node:sqlite: records can only be kept in memory')
}

function numberOf(row: Record<string, SQLOutputValue> | undefined): number {
  return Number(Object.values(row ?? {})[0])
}

function open(path: string): DatabaseSync {
  const { DatabaseSync } = loadSqlite()
  const db = new DatabaseSync(path, { timeout: busyTimeoutMs })
  try {
    const pragma = (name: string): number => numberOf(db.prepare(`PRAGMA ${name}`).get())
    const tables = (): number => numberOf(db.prepare('SELECT count(*) FROM sqlite_schema').get())
    if (tables() === 0) {
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE')
      // Another process may just have made it.
      db.exec(tables() === 0 ? `${schema}; COMMIT` : 'ROLLBACK')
    }
    if (pragma('application_id') !== applicationId)
      throw new StorageError('exists', path, 'this is the database of another program: choose another file')
    const version = pragma('user_version')
    if (version !== schemaVersion) {
      const message = `the records have version ${version}, this rhiza knows version ${schemaVersion}`
      throw new StorageError('unsupported', path, `${message}: use another rhiza or another file`)
    }
    if (Object.values(db.prepare('PRAGMA quick_check(1)').get() ?? {})[0] !== 'ok')
      throw new StorageError('corrupt', path, kinds[11]?.[1] ?? '')
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** So that a value under another key is as damaged as another value. */
function sumOf(key: string, value: Uint8Array): number {
  return crc32(value, crc32(key))
}

interface Waiting {
  changes: RecordChange[]
  done: (deleted: boolean) => void
  failed: (error: Error) => void
}

class SqliteRecords implements RecordStore {
  readonly #path: string
  readonly #env: Env
  readonly #db: DatabaseSync
  readonly #select: StatementSync
  readonly #page: StatementSync
  readonly #upsert: StatementSync
  readonly #remove: StatementSync
  readonly #sweep: StatementSync
  #waiting: Waiting[] = []
  #sweptAt = -Infinity
  #closed = false

  constructor(path: string, db: DatabaseSync, env: Env) {
    this.#path = path
    this.#env = env
    this.#db = db
    const alive = '(expires_at IS NULL OR expires_at > ?)'
    this.#select = db.prepare(`SELECT key, value, sum, expires_at FROM records WHERE key = ? AND ${alive}`)
    // Keys are ASCII: what starts with the prefix lies before the prefix followed by DEL.
    this.#page = db.prepare(
      `SELECT key, value, sum, expires_at FROM records
       WHERE key > ? AND key >= ? AND key < ? AND ${alive} ORDER BY key LIMIT ${pageRows}`,
    )
    this.#upsert = db.prepare('INSERT OR REPLACE INTO records (key, value, sum, expires_at) VALUES (?, ?, ?, ?)')
    this.#remove = db.prepare(`DELETE FROM records WHERE key = ? RETURNING ${alive}`)
    this.#sweep = db.prepare('DELETE FROM records WHERE expires_at <= ?')
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#check()
    checkKey(key)
    return this.#storing(() => {
      const row = this.#select.get(key, this.#now())
      return row && this.#read(row).value
    })
  }

  async put(key: string, value: Uint8Array, options: RecordOptions = {}): Promise<void> {
    await this.#write([{ key, value, ...options }])
  }

  delete(key: string): Promise<boolean> {
    return this.#write([{ key, value: undefined }])
  }

  async batch(changes: Iterable<RecordChange>): Promise<void> {
    await this.#write(changes)
  }

  async *entries(prefix: string): AsyncGenerator<StoredRecord, void, undefined> {
    for (let last = ''; ;) {
      this.#check()
      const page = this.#storing(() => this.#page.all(last, prefix, `${prefix}\x7f`, this.#now()))
      for (const row of page) yield this.#read(row)
      if (page.length < pageRows) return
      last = String(page.at(-1)?.['key'])
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#flush()
    this.#closed = true
    this.#storing(() => this.#db.close())
  }

  #check(): void {
    if (this.#closed) throw recordsClosed()
  }

  #now(): number {
    return this.#env.clock.wallTime()
  }

  #storing<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw storageError(this.#path, error)
    }
  }

  #read(row: Record<string, SQLOutputValue>): StoredRecord {
    const { key, value, sum, expires_at: expiresAt } = row
    if (typeof key !== 'string' || !(value instanceof Uint8Array) || sum !== sumOf(key, value))
      throw new StorageError('corrupt', this.#path, `record ${String(key)} is damaged: delete it or restore the file`)
    return { key, value, expiresAt: expiresAt === null ? undefined : Number(expiresAt) }
  }

  /** Whether the last change deleted something. */
  async #write(changes: Iterable<RecordChange>): Promise<boolean> {
    this.#check()
    const checked = checkChanges(changes)
    return new Promise((done, failed) => {
      if (this.#waiting.push({ changes: checked, done, failed }) === 1) this.#env.turn(() => this.#flush())
    })
  }

  #flush(): void {
    const all = this.#waiting
    if (all.length === 0) return
    this.#waiting = []
    try {
      const deleted = this.#transaction(all)
      for (const [i, { done }] of all.entries()) done(deleted[i] === true)
    } catch (error) {
      const reason = storageError(this.#path, error)
      for (const { failed } of all) failed(reason)
    }
  }

  #transaction(all: readonly Waiting[]): boolean[] {
    const now = this.#now()
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      if (now - this.#sweptAt >= sweepIntervalMs) {
        this.#sweep.run(now)
        this.#sweptAt = now
      }
      const deleted = all.map(({ changes }) => changes.map((one) => this.#change(one, now)).at(-1) === true)
      this.#db.exec('COMMIT')
      return deleted
    } catch (error) {
      // After an error such as a full disk SQLite may have rolled back itself.
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      throw error
    }
  }

  #change({ key, value, expiresAt }: RecordChange, now: number): boolean {
    if (value === undefined) return numberOf(this.#remove.get(key, now) ?? { none: 0 }) === 1
    const expiry: SQLInputValue = expiresAt === undefined ? null : Math.floor(expiresAt)
    this.#upsert.run(key, value, sumOf(key, value), expiry)
    return false
  }
}

/**
 * Opens the file at `path`, makes it (with the folders above it) when there is none. Rejects with StorageError: `corrupt`
 * for a damaged file, `exists` for another program's database, `unsupported` for another version, `disk-full`,
 * `not-permitted` and `io`; with UnavailableError `unsupported` where there is no node:sqlite.
 */
export async function openSqliteRecords(
  path: string,
  { env = systemEnv() }: SqliteRecordsOptions = {},
): Promise<RecordStore> {
  await storing(path, () => makeDirectory(dirname(path), 0o700))
  try {
    return new SqliteRecords(path, open(path), env)
  } catch (error) {
    throw storageError(path, error)
  }
}
