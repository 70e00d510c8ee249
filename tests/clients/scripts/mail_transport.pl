use strict;
use warnings;
use Mail::Transport::POP3;

# It lets no CA file be named but OpenSSL's own, for which see SSL_CERT_FILE.
my $pop = Mail::Transport::POP3->new(
    hostname => 'localhost',
    port => $ENV{POP_PORT},
    username => $ENV{POP_USER},
    password => $ENV{POP_PASSWORD},
    authenticate => $ENV{POP_MECHANISM} eq 'APOP' ? 'APOP' : 'LOGIN',
    use_ssl => 1,
) or die 'no connection';
for my $uid ($pop->ids) {
    my $lines = $pop->message($uid) or die "RETR: $uid";
    open my $file, '>:raw', "$ENV{POP_INBOX}/$uid" or die $!;
    print $file @$lines;
    close $file or die $!;
    $pop->deleted(1, $uid) unless $ENV{POP_KEEP};
}
$pop->disconnect or die 'QUIT';
