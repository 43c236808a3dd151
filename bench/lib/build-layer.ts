import { createReadStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BlobFile, buildFromDirectory, buildFromTar } from '@pantala/convert';
import { decompressed, walkTar } from '@pantala/oci';
import { encodeBootstrap } from '@pantala/rafs';

// Builds one layer as `pantala image build` does, with the choice of LZ4 that the command does not offer.
// Arguments: source, `directory` or `targz`, folder for what is built, compressor, `system` or `bundled` for LZ4.

const READ_LENGTH = 1024 * 1024;
const [source, type, folder, compressor, lz4] = process.argv.slice(2) as [
  string,
  'directory' | 'targz',
  string,
  'none' | 'lz4_block' | 'zstd',
  'system' | 'bundled',
];
await using blob = await BlobFile.create(join(folder, 'blobs'));
const options = { compressor, lz4 } as const;
const layer =
  type === 'directory'
    ? await buildFromDirectory(source, blob, options)
    : await buildFromTar(
        walkTar(decompressed(createReadStream(source, { highWaterMark: READ_LENGTH }), { frees: true })),
        blob,
        options,
      );
if (layer.written !== undefined) await blob.keep(layer.written.id);
await writeFile(join(folder, 'bootstrap'), encodeBootstrap(layer.image));
