use strict;
use warnings;
use Net::POP3;

my %tls = (SSL_ca_file => $ENV{POP_CA}, SSL_verifycn_name => 'localhost');
my $implicit = $ENV{POP_WAY} eq 'tls';
my $pop = Net::POP3->new('localhost', Port => $ENV{POP_PORT}, Timeout => 20, $implicit ? (SSL => 1, %tls) : ())
    or die "no connection: $@";
$implicit or $pop->starttls(%tls) or die 'STLS: ', $pop->message;

my ($user, $password, $mechanism) = @ENV{qw(POP_USER POP_PASSWORD POP_MECHANISM)};
if ($mechanism eq 'APOP') {
    defined $pop->apop($user, $password) or die 'APOP: ', $pop->message;
} elsif ($mechanism eq 'CRAM-MD5' || $mechanism eq 'PLAIN') {
    require Authen::SASL;
    my $sasl = Authen::SASL->new(
        mechanism => $mechanism,
        callback => {user => $user, pass => $password, authname => ''},
    );
    $pop->auth($sasl, $password) or die "$mechanism: ", $pop->message;
} else {
    defined $pop->login($user, $password) or die 'PASS: ', $pop->message;
}

my $uids = $pop->uidl or die 'UIDL: ', $pop->message;
for my $number (sort { $a <=> $b } keys %$uids) {
    my $lines = $pop->get($number) or die 'RETR: ', $pop->message;
    open my $file, '>:raw', "$ENV{POP_INBOX}/$uids->{$number}" or die $!;
    print $file @$lines;
    close $file or die $!;
    $ENV{POP_KEEP} or $pop->delete($number) or die 'DELE: ', $pop->message;
}
$pop->quit or die 'QUIT: ', $pop->message;
