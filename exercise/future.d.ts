/** What the package is getting. */
export type Missing = never;
declare module '../src/file-handle.js' {
  interface FileHandle {
    fallocate(position: number, length: number, options: object): Promise<void>;
    seekData(position: number): Promise<number>;
    seekHole(position: number): Promise<number>;
    extents(): Promise<{ position: number; length: number; unwritten: boolean }[]>;
  }
}
declare module '../src/volume-options.js' {
  interface OpenOptions {
    data?: string;
  }
}
