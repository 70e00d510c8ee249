const fs = require('fs');
const path = require('path');
const POP3Client = require('poplib');

const told = process.env;
const client = new POP3Client(Number(told.POP_PORT), 'localhost', { enabletls: true });

// Wait for the event of a command, and return what comes with it.
function asked(event, ...args) {
  return new Promise((resolve, reject) => {
    client.once(event, (good, ...rest) => (good ? resolve(rest) : reject(new Error(rest.join(' ')))));
    if (event != 'connect') {
      client[event](...args);
    }
  });
}

(async () => {
  client.on('error', error => { throw error; });
  await asked('connect');
  const mechanism = told.POP_MECHANISM;
  if (mechanism == 'PLAIN' || mechanism == 'CRAM-MD5') {
    await asked('auth', mechanism, told.POP_USER, told.POP_PASSWORD);
  } else {
    await asked('login', told.POP_USER, told.POP_PASSWORD);
  }
  const [, uids] = await asked('uidl');
  for (const number of Object.keys(uids)) {
    const [, message] = await asked('retr', number);
    fs.writeFileSync(path.join(told.POP_INBOX, uids[number]), message, 'latin1');
    if (!told.POP_KEEP) {
      await asked('dele', number);
    }
  }
  await asked('quit');
})().catch(error => {
  console.error(error);
  process.exit(1);
});
