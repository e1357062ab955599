// In the place of geotiff.js' own, which is WebAssembly: a decoder that the page's policy lets run.
import {decompress} from 'fzstd';
import BaseDecoder from './basedecoder.js';

export const zstd = {init: async () => {}};

export default class extends BaseDecoder {
  decodeBlock(buffer) {
    const {buffer: bytes, byteOffset, byteLength} = decompress(new Uint8Array(buffer));
    return bytes.slice(byteOffset, byteOffset + byteLength);
  }
}
