/* A process of its own for the records tests: puts records, alone and in batches, and prints what is acknowledged. */
import { writeSync } from 'node:fs'
import { fromUtf8 } from '../../src/bytes.ts'
import { openSqliteRecords } from '../../src/store/sqlite-records.ts'

const [path = '', name = 'a', count = '0'] = process.argv.slice(2)

try {
  const records = await openSqliteRecords(path)
  const value = (i: number): Uint8Array => fromUtf8(`${name} ${i} `.padEnd(10 + (i % 7) * 1000, 'x'))
  for (let i = 0; i < Number(count); i += 4) {
    const alone = [i, i + 1]
    const both = [i + 2, i + 3]
    const acknowledge = (numbers: number[]): void => void writeSync(1, numbers.map((n) => `/${name}/${n}\n`).join(''))
    await Promise.all([
      ...alone.map((n) => records.put(`/${name}/${n}`, value(n)).then(() => acknowledge([n]))),
      records.batch(both.map((n) => ({ key: `/${name}/${n}`, value: value(n) }))).then(() => acknowledge(both)),
    ])
  }
  await records.close()
} catch (error) {
  const { code, message } = error as { code?: string; message: string }
  writeSync(1, `${code}: ${message}\n`)
}
