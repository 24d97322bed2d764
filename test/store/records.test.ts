import { execFileSync, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fromUtf8, toUtf8 } from '../../src/bytes.ts'
import { fakeEnv } from '../../src/env.ts'
import { ClosedError, LimitError, StorageError } from '../../src/errors.ts'
import { maxKeyLength, maxValueBytes, memoryRecords, type RecordStore } from '../../src/store/records.ts'
import { openSqliteRecords } from '../../src/store/sqlite-records.ts'

let directory: string
let path: string
let env: ReturnType<typeof fakeEnv>
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'rhiza-records-'))
  path = join(directory, 'deep', 'records.sqlite')
  env = fakeEnv()
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const a = fromUtf8('a')
const b = fromUtf8('b')

async function all(records: RecordStore, prefix = ''): Promise<string[]> {
  return (await Array.fromAsync(records.entries(prefix))).map(({ key, value }) => `${key}=${toUtf8(value)}`)
}

describe.each([
  ['in memory', async (): Promise<RecordStore> => memoryRecords({ env })],
  ['in SQLite', (): Promise<RecordStore> => openSqliteRecords(path, { env })],
])('records %s', (_where, open) => {
  let records: RecordStore
  beforeEach(async () => (records = await open()))
  afterEach(() => records.close())

  it('are there once put, replaced by the next put, and gone once deleted', async () => {
    expect(await records.get('/x')).toBeUndefined()
    await records.put('/x', a)
    expect(await records.get('/x')).toEqual(a)
    await records.put('/x', b)
    expect(await records.get('/x')).toEqual(b)
    expect(await records.delete('/x')).toBe(true)
    expect(await records.delete('/x')).toBe(false)
    expect(await records.get('/x')).toBeUndefined()
    await records.put('/empty', new Uint8Array(0))
    expect(await records.get('/empty')).toEqual(new Uint8Array(0))
  })

  it('do not change when the bytes that were put do', async () => {
    const bytes = fromUtf8('mine')
    const done = records.put('/x', bytes)
    bytes.fill(0)
    await done
    expect(toUtf8((await records.get('/x')) ?? a)).toBe('mine')
  })

  it('are listed by prefix in the order of their keys', async () => {
    for (const key of ['/p/b', '/p/a/2', '/q', '/p/a', '/p/a!', '/p/a/10', '/p/~', '/pp', '/P/a'])
      await records.put(key, a)
    expect(await all(records, '/p/')).toEqual(['/p/a=a', '/p/a!=a', '/p/a/10=a', '/p/a/2=a', '/p/b=a', '/p/~=a'])
    expect(await all(records, '/p/a')).toEqual(['/p/a=a', '/p/a!=a', '/p/a/10=a', '/p/a/2=a'])
    expect(await all(records)).toHaveLength(9)
    expect(await all(records, '/none')).toEqual([])
  })

  it('are all listed when there are many, and may change meanwhile', async () => {
    const keys = Array.from({ length: 1000 }, (_, i) => `/many/${String(i).padStart(4, '0')}`)
    await records.batch(keys.map((key) => ({ key, value: a })))
    const seen: string[] = []
    for await (const { key } of records.entries('/many/')) {
      seen.push(key)
      await records.delete(key)
    }
    expect(seen).toEqual(keys)
    expect(await all(records)).toEqual([])
  })

  it('are gone when their time has come', async () => {
    const now = env.clock.wallTime()
    await records.put('/soon', a, { expiresAt: now + 1000 })
    await records.put('/late', a, { expiresAt: now + 5000 })
    await records.put('/never', a, { expiresAt: Infinity })
    await records.put('/past', a, { expiresAt: now })
    expect(await records.get('/past')).toBeUndefined()
    const [late, never, soon] = await Array.fromAsync(records.entries('/'))
    expect([late, never, soon]).toMatchObject([
      { key: '/late', expiresAt: now + 5000 },
      { key: '/never', expiresAt: undefined },
      { key: '/soon' },
    ])
    await env.clock.advance(999)
    expect(await records.get('/soon')).toEqual(a)
    await env.clock.advance(1)
    expect(await records.get('/soon')).toBeUndefined()
    expect(await records.delete('/soon')).toBe(false)
    expect(await all(records)).toEqual(['/late=a', '/never=a'])
    await records.put('/late', b)
    await env.clock.advance(3_600_000)
    expect(await all(records)).toEqual(['/late=b', '/never=a'])
  })

  it('are written all or none in a batch, in order', async () => {
    await records.put('/x', a)
    await records.batch([
      { key: '/x', value: undefined },
      { key: '/y', value: a },
      { key: '/y', value: b },
      { key: '/z', value: b },
      { key: '/z', value: undefined },
    ])
    expect(await all(records)).toEqual(['/y=b'])
    const tooLarge = { key: '/l', value: new Uint8Array(maxValueBytes + 1) }
    await expect(records.batch([{ key: '/k', value: a }, tooLarge])).rejects.toBeInstanceOf(LimitError)
    expect(await all(records)).toEqual(['/y=b'])
  })

  it('take keys and values up to their bounds', async () => {
    for (const key of ['', '/', 'x', 'x/y', '/x/', '//', '/x y', '/ü', '/x\n', '/x\0'])
      await expect(records.put(key, a), key).rejects.toBeInstanceOf(TypeError)
    await expect(records.get('no')).rejects.toBeInstanceOf(TypeError)
    await expect(records.delete('no')).rejects.toBeInstanceOf(TypeError)
    const longest = `/${'k'.repeat(maxKeyLength - 1)}`
    await expect(records.put(`${longest}k`, a)).rejects.toMatchObject({ code: 'limit', limit: 'maxKeyLength' })
    await expect(records.put('/x', new Uint8Array(maxValueBytes + 1))).rejects.toMatchObject({ limit: 'maxValueBytes' })
    await expect(records.put('/x', a, { expiresAt: Number.NaN })).rejects.toBeInstanceOf(RangeError)
    await records.put(longest, new Uint8Array(maxValueBytes).fill(7))
    expect((await records.get(longest))?.length).toBe(maxValueBytes)
  })

  it('are no more to be had after close, which may be called twice', async () => {
    const written = records.put('/x', a)
    await records.close()
    await written
    await records.close()
    for (const call of [records.get('/x'), records.put('/x', a), records.delete('/x'), records.batch([]), all(records)])
      await expect(call).rejects.toBeInstanceOf(ClosedError)
  })

  it('are what a Map would hold', async () => {
    const key = fc.constantFrom('/a', '/a/b', '/b', '/b/~', '/c')
    const step = fc.record({ key, value: fc.option(fc.uint8Array({ maxLength: 4 }), { nil: undefined }) })
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 10 }), async (batches) => {
        for await (const { key: old } of records.entries('/')) await records.delete(old)
        const model = new Map<string, Uint8Array>()
        await Promise.all(batches.map((batch) => records.batch(batch)))
        for (const one of batches.flat()) {
          if (one.value === undefined) model.delete(one.key)
          else model.set(one.key, one.value)
        }
        const expected = [...model].toSorted(([x], [y]) => (x < y ? -1 : 1))
        const found = (await Array.fromAsync(records.entries('/'))).map(({ key: k, value }) => [k, value])
        expect(found).toEqual(expected)
      }),
      { numRuns: 50 },
    )
  })
})

describe('records in memory', () => {
  it('are refused beyond maxBytes, once those that expired have made room', async () => {
    const records = memoryRecords({ env, maxBytes: 100 })
    await records.put('/a', new Uint8Array(50), { expiresAt: env.clock.wallTime() + 1000 })
    await records.put('/b', new Uint8Array(40))
    const put = (): Promise<void> => records.put('/c', new Uint8Array(20))
    await expect(put()).rejects.toMatchObject({ code: 'limit', limit: 'maxBytes', max: 100, current: 116 })
    await records.put('/b', new Uint8Array(46))
    await env.clock.advance(1000)
    await put()
    expect(() => memoryRecords({ maxBytes: Number.NaN })).toThrow(RangeError)
  })
})

async function corrupted(change: (bytes: Buffer) => Buffer | void): Promise<Buffer> {
  const records = await openSqliteRecords(path, { env })
  for (let i = 0; i < 200; i++) await records.put(`/k/${i}`, fromUtf8(`value ${i} `.repeat(20)))
  await records.close()
  const bytes = await readFile(path)
  const changed = change(bytes) ?? bytes
  await writeFile(path, changed)
  return changed
}

describe('records in SQLite', () => {
  it('are there again when the file is opened again, and in two stores at once', async () => {
    const first = await openSqliteRecords(path)
    const second = await openSqliteRecords(path)
    await first.put('/x', a)
    expect(await second.get('/x')).toEqual(a)
    await Promise.all([first.put('/y', b), second.put('/z', b)])
    await first.close()
    await second.close()
    const third = await openSqliteRecords(path)
    expect(await all(third)).toEqual(['/x=a', '/y=b', '/z=b'])
    await third.close()
  })

  it.each([
    ['is not a database', () => Buffer.from('this is a text, and a long one at that. '.repeat(100))],
    ['has a damaged page', (bytes: Buffer) => void bytes.fill(0xff, 4096, 8192)],
    ['was cut short', (bytes: Buffer) => bytes.subarray(0, bytes.length - 5000)],
  ])('of a file that %s are refused as corrupt, and the file stays as it is', async (_what, change) => {
    const bytes = await corrupted(change)
    const error = await openSqliteRecords(path, { env }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(StorageError)
    expect(error).toMatchObject({ code: 'corrupt', path })
    expect(Buffer.compare(await readFile(path), bytes)).toBe(0)
  })

  it('with a changed value are refused one by one', async () => {
    await corrupted((bytes) => {
      bytes.write('VALUE 77 ', bytes.indexOf('value 77 '))
    })
    const records = await openSqliteRecords(path, { env })
    await expect(records.get('/k/77')).rejects.toMatchObject({ code: 'corrupt' })
    await expect(all(records)).rejects.toMatchObject({ code: 'corrupt' })
    expect(await records.get('/k/78')).toBeDefined()
    await records.put('/k/77', a)
    expect(await all(records)).toHaveLength(200)
    await records.close()
  })

  it.each([
    ['of another program', 'PRAGMA application_id = 1', 'exists'],
    ['of another version', 'PRAGMA user_version = 2', 'unsupported'],
    ['that has tables of somebody else', 'PRAGMA application_id = 0', 'exists'],
  ])('in a database %s are left alone', async (_what, sql, code) => {
    await (await openSqliteRecords(path)).close()
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
    const db = new DatabaseSync(path)
    db.exec(sql)
    db.close()
    await expect(openSqliteRecords(path)).rejects.toMatchObject({ name: 'StorageError', code })
  })

  it('are refused with the reason where nothing can be made', async () => {
    await mkdir(path, { recursive: true })
    await expect(openSqliteRecords(path)).rejects.toMatchObject({ name: 'StorageError', path })
    await expect(openSqliteRecords('/proc/nothing/records')).rejects.toBeInstanceOf(StorageError)
    if (process.getuid?.() === 0) return
    await chmod(directory, 0o500)
    await expect(openSqliteRecords(join(directory, 'x'))).rejects.toMatchObject({ code: 'not-permitted' })
  })

  it('expire from the file too', async () => {
    const records = await openSqliteRecords(path, { env })
    await records.put('/old', new Uint8Array(50_000), { expiresAt: env.clock.wallTime() + 1 })
    await env.clock.advance(3_600_000)
    await records.put('/new', a)
    await records.close()
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
    const db = new DatabaseSync(path)
    expect(db.prepare('SELECT key FROM records').all()).toEqual([{ key: '/new' }])
    db.close()
  })
})

const putRecords = fileURLToPath(new URL('put-records.ts', import.meta.url))
const kills = Number(process.env['RHIZA_KILLS'] ?? 6)

async function runChild(args: string[], killAfterMs?: number): Promise<{ lines: string[]; signal: string | null }> {
  const child = spawn(process.execPath, [putRecords, path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  let timer: NodeJS.Timeout | undefined
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
    if (killAfterMs !== undefined) timer ??= setTimeout(() => child.kill('SIGKILL'), killAfterMs)
  })
  const signal = await new Promise<string | null>((resolve) => child.once('close', (_code, by) => resolve(by)))
  clearTimeout(timer)
  return { lines: out.split('\n').slice(0, -1), signal }
}

describe.runIf(Boolean(process.features.typescript))('several processes', () => {
  it(
    'keep what was acknowledged, and whole batches, when they are killed at any moment',
    { timeout: 60_000 },
    async () => {
      const acknowledged = new Set<string>()
      for (let run = 0; run < kills; run++) {
        const { lines, signal } = await runChild([`run${run}`, '1000000'], Math.random() * 60)
        expect(signal).toBe('SIGKILL')
        for (const line of lines) acknowledged.add(line)
        const records = await openSqliteRecords(path)
        const keys = new Set((await Array.fromAsync(records.entries('/'))).map(({ key }) => key))
        await records.close()
        for (const key of acknowledged) expect(keys).toContain(key)
        for (const key of keys) {
          const [, name = '', number = ''] = key.split('/')
          const other = { 2: 1, 3: -1 }[Number(number) % 4]
          if (other !== undefined) expect(keys).toContain(`/${name}/${Number(number) + other}`)
        }
      }
      expect(acknowledged.size).toBeGreaterThan(0)
    },
  )

  it('write into one file at once', { timeout: 60_000 }, async () => {
    const runs = await Promise.all(['a', 'b', 'c'].map((name) => runChild([name, '40'])))
    const records = await openSqliteRecords(path)
    const keys = (await Array.fromAsync(records.entries('/'))).map(({ key }) => key)
    expect(keys).toEqual(runs.flatMap(({ lines }) => lines).toSorted())
    expect(keys).toHaveLength(120)
    await records.close()
  })

  it('hear no warning of node:sqlite, and other warnings as before', () => {
    const code = `
      import { openSqliteRecords } from ${JSON.stringify(new URL('../../src/store/sqlite-records.ts', import.meta.url))}
      process.on('warning', ({ message }) => process.stdout.write(message))
      await (await openSqliteRecords(${JSON.stringify(path)})).close()
      process.emitWarning('another')`
    const out = execFileSync(process.execPath, ['--input-type=module', '--eval', code], { encoding: 'utf8' })
    expect(out).toBe('another')
  })
})
