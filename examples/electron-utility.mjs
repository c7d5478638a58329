// A storage process: utilityProcess.fork() in Electron, child_process.fork() elsewhere. Renderers talk to it by messages.
import { Volume } from 'uext4';

const port = process.parentPort;
const send = (message) => (port ? port.postMessage(message) : process.send(message));

let volume;
const calls = {
  async open(image, sizeBytes) {
    if (sizeBytes !== undefined) await Volume.format(image, { sizeBytes });
    volume = await Volume.open(image);
    return volume.info();
  },
  writeFile: (path, data) => volume.writeFile(path, data, { flush: true }),
  readFile: (path) => volume.readFile(path, 'utf8'),
  readdir: (path) => volume.readdir(path),
  close: () => volume.close(),
};

async function answer({ id, call, args }) {
  try {
    if (!Object.hasOwn(calls, call)) throw new Error(`no such call: ${call}`);
    send({ id, value: await calls[call](...args) });
  } catch (error) {
    send({ id, error: { code: error.code, message: error.message } });
  }
  // Under child_process.fork() the channel alone keeps the process alive.
  if (call === 'close' && !port) process.disconnect();
}

if (port) port.on('message', ({ data }) => answer(data));
else process.on('message', answer);
