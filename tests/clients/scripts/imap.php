<?php
// c-client lets no CA file be named but OpenSSL's own, for which see SSL_CERT_FILE.
$way = getenv('POP_WAY') == 'tls' ? 'ssl' : 'tls';
$box = imap_open(
    '{localhost:' . getenv('POP_PORT') . "/pop3/$way/validate-cert}INBOX",
    getenv('POP_USER'),
    getenv('POP_PASSWORD')
);
if (!$box) {
    fwrite(STDERR, implode("\n", imap_errors() ?: ['no connection']));
    exit(1);
}
for ($number = 1; $number <= imap_num_msg($box); $number++) {
    $message = imap_fetchheader($box, $number) . imap_body($box, $number);
    file_put_contents(getenv('POP_INBOX') . "/$number", $message);
    if (!getenv('POP_KEEP')) {
        imap_delete($box, $number);
    }
}
imap_close($box, CL_EXPUNGE);
$errors = imap_errors();
if ($errors) {
    fwrite(STDERR, implode("\n", $errors));
    exit(1);
}
