use strict;
use warnings;
use Mail::POP3Client;

# It lets no CA file be named but OpenSSL's own, for which see SSL_CERT_FILE.
my $mechanism = $ENV{POP_MECHANISM};
my $pop = Mail::POP3Client->new(
    HOST => 'localhost',
    PORT => $ENV{POP_PORT},
    USER => $ENV{POP_USER},
    PASSWORD => $ENV{POP_PASSWORD},
    AUTH_MODE => $mechanism eq 'APOP' || $mechanism eq 'CRAM-MD5' ? $mechanism : 'PASS',
    USESSL => 1,
    TIMEOUT => 20,
);
$pop->State eq 'TRANSACTION' or die $pop->Message;
my @uids = $pop->Uidl;
for my $number (1 .. $#uids) {
    open my $file, '>:raw', "$ENV{POP_INBOX}/$uids[$number]" or die $!;
    $pop->RetrieveToFile($file, $number) or die $pop->Message;
    close $file or die $!;
    $ENV{POP_KEEP} or $pop->Delete($number) or die $pop->Message;
}
$pop->Close or die $pop->Message;
