// A wasi:http 0.2 server in JavaScript: the engine and a program in one component.
//
// Routes: / (who it is), /env, /args, /echo (streams the body back), /status/N, /headers,
// /stderr?text=, /throw (an exception that nobody catches: the engine answers 500 and lives on).
import { getArguments, getEnvironment } from 'wasi:cli/environment@0.2.10';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  const [route, word] = url.pathname.slice(1).split('/');
  switch (route) {
    case '':
      return text('hello from http-js\n');
    case 'env':
      return text(getEnvironment().map(([name, value]) => `${name}=${value}\n`).join(''));
    case 'args':
      return text(getArguments().map((argument) => `${argument}\n`).join(''));
    case 'echo':
      return new Response(request.body, { headers: { 'x-guest': 'http-js' } });
    case 'headers':
      return text([...request.headers].map(([name, value]) => `${name}: ${value}\n`).join(''));
    case 'status':
      return text(`status ${word}\n`, Number(word));
    case 'stderr':
      console.error(url.searchParams.get('text') ?? '');
      return text('printed\n');
    case 'throw':
      throw new Error('http-js fails as asked');
    default:
      return text('no such route\n', 404);
  }
}

function text(words, status = 200) {
  return new Response(words, { status, headers: { 'x-guest': 'http-js' } });
}
