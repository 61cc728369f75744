#!/usr/bin/perl
# One of the two machines of the checksum probe (checksum.ts), in a network namespace that ends with it.
#
#   unshare --net perl checksum.pl client|server MAC PEER-MAC OWN4 OWN6 PORT PLAIN4 PLAIN6 PLAIN-PORT REWRITTEN4 REWRITTEN6 REWRITTEN-PORT
#
# The peer is reached by two addresses: its own, and one that the switch rewrites on the way.
# Says "here"; then, told "links", makes its own of the interface `far` that it was given, and says "ready" (or why not). Told "go", the
# client exchanges data with the server and says "wrong plain|rewritten UDP|TCP 4|6" for what did not arrive intact, and "done". Told
# "sums", either says how many wrong checksums its kernel has seen. Ends with its standard input.
# In Perl because perl-base is on every Debian, and starts in 10 ms.
use strict;
use warnings;
use IO::Handle;
use POSIX ();
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_TCP);

my ($role, $mac, $peer_mac, @words) = @ARGV;
die "usage: see the head of this file\n" unless @words == 9;
my @own = splice(@words, 0, 3);
my %peer = (plain => [splice(@words, 0, 3)], rewritten => \@words);
STDOUT->autoflush(1);
$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 0 } for 'TERM', 'HUP';
alarm 20;    # whatever happens, nothing of this stays

# Enough for many full segments a direction.
my $bytes = join('', map { chr($_ * 7 % 251) } 0 .. 65535);
my @children;
END { kill 'KILL', @children if @children }

# Frames that come from the switch go through a bridge and a link without offloads before the socket: there the kernel completes what a
# network card would have to, and then verifies it. A plain veth pair would let any unfinished checksum pass.
sub links {
  my $batch = join("\n",
    'link add sum type bridge', "link add out type veth peer name in address $mac",
    'link set far master sum', 'link set out master sum', map({ "link set $_ up" } 'lo', 'sum', 'far', 'out', 'in'),
    "address add $own[0]/32 dev in", to_peers(0, 32), '');
  my $batch6 = join("\n", "address add $own[1]/128 dev in nodad", to_peers(1, 128), '');
  my $error = ip($batch) || run('ethtool', '-K', 'out', 'tx', 'off') || run('ethtool', '-K', 'in', 'rx', 'off');
  return $error if $error ne '';
  ip($batch6);    # without IPv6 it is not tried
  return 'ready';
}

sub to_peers {
  my ($which, $length) = @_;
  return map {
    my $to = $_->[$which];
    ("route add $to/$length dev in", "neighbour add $to lladdr $peer_mac dev in nud permanent");
  } values %peer;
}

sub ip {
  my ($batch) = @_;
  open(my $in, '|-', 'ip', '-batch', '-') or return "ip: $!";
  print $in $batch;
  return close($in) ? '' : 'ip -batch failed';
}

sub run {
  my $pid = fork;
  return "fork: $!" unless defined $pid;
  if (!$pid) {
    open(STDOUT, '>&', \*STDERR);    # ethtool tells what it has changed
    exec(@_) or POSIX::_exit(127);
  }
  waitpid($pid, 0);
  return $? == 0 ? '' : "$_[0] failed";
}

sub address {
  my ($family, $text, $port) = @_;
  return $family == 4 ? pack_sockaddr_in($port, inet_aton($text)) : pack_sockaddr_in6($port, inet_pton(AF_INET6, $text));
}

sub peer {
  my ($kind, $family) = @_;
  my ($ip4, $ip6, $port) = @{ $peer{$kind} };
  return address($family, $family == 4 ? $ip4 : $ip6, $port);
}

# Undefined where the machine does not have the family. Each use has a port of its own.
sub bound {
  my ($family, $type, $kind) = @_;
  my $socket;
  socket($socket, $family == 4 ? AF_INET : AF_INET6, $type, 0) or return undef;
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
  my $port = $own[2] + ($kind eq 'plain' ? 1 : 0);
  return bind($socket, address($family, $family == 4 ? $own[0] : $own[1], $port)) ? $socket : undef;
}

sub readable {
  my ($seconds, @sockets) = @_;
  my $bits = '';
  vec($bits, fileno($_), 1) = 1 for @sockets;
  return undef unless select($bits, undef, undef, $seconds) > 0;
  return (grep { vec($bits, fileno($_), 1) } @sockets)[0];
}

sub read_all {
  my ($socket) = @_;
  my $got = '';
  while (length $got < length $bytes) {
    my $n = sysread($socket, $got, 65536, length $got);
    return 0 unless $n;
  }
  return $got eq $bytes;
}

sub write_all {
  my ($socket) = @_;
  my $at = 0;
  while ($at < length $bytes) {
    my $n = syswrite($socket, $bytes, length($bytes) - $at, $at) or return 0;
    $at += $n;
  }
  return 1;
}

# Both protocols of one family, without end. Datagrams come back as they are, a stream only if it is right.
sub serve {
  my ($family) = @_;
  my ($udp, $tcp) = map { bound($family, $_, 'rewritten') } SOCK_DGRAM, SOCK_STREAM;
  return unless $udp && $tcp && listen($tcp, 4);
  while (1) {
    my $ready = readable(20, $udp, $tcp) or next;
    if ($ready == $udp) {
      my $from = recv($udp, my $datagram, 65536, 0);
      send($udp, $datagram, 0, $from) if defined $from;
    } elsif (accept(my $stream, $tcp)) {
      # One that stalls does not hold the others up.
      child(sub { write_all($stream) if read_all($stream) });
    }
  }
}

# Many short tries: the first frames wait for links and for the switch to look up what is to be done with them.
sub udp_right {
  my ($kind, $family) = @_;
  my $udp = bound($family, SOCK_DGRAM, $kind) or return 1;
  for (1 .. 80) {
    my $sent = substr($bytes, $_, 1200);
    send($udp, $sent, 0, peer($kind, $family));
    next unless readable(0.025, $udp);
    recv($udp, my $got, 65536, 0);
    return 1 if defined $got && $got eq $sent;
  }
  return 0;
}

sub tcp_right {
  my ($kind, $family) = @_;
  my $tcp = bound($family, SOCK_STREAM, $kind) or return 1;
  return connect($tcp, peer($kind, $family)) && write_all($tcp) && read_all($tcp);
}

# What is rewritten has as long as what is not took, four times over, and a little: a machine that is busy is not a machine that is wrong.
sub check_all {
  my @plain = map { ['plain', 'UDP', $_, \&udp_right] } 4, 6;
  my @wrong = grep { !$_->[3]->('plain', $_->[2]) } @plain;
  my @rest = map {
    my $family = $_;
    (['plain', 'TCP', $family, \&tcp_right],
      map { ['rewritten', @$_] } ['UDP', $family, \&udp_right], ['TCP', $family, \&tcp_right]);
  } 4, 6;
  my $started = now();
  my %running = map {
    my ($kind, $proto, $family, $right) = @$_;
    child(sub { $right->($kind, $family) ? 0 : 1 }) => $_;
  } @rest;
  my $end = $started + (@wrong ? 0.2 : 2);
  while (%running && now() < $end) {
    my $pid = waitpid(-1, POSIX::WNOHANG());
    if ($pid <= 0) { select(undef, undef, undef, 0.002); next }
    my $check = delete $running{$pid} or next;
    @children = grep { $_ != $pid } @children;
    if ($? != 0) { push @wrong, $check; next }
    my $took = now() - $started;
    $end = $started + 5 * $took + 0.2 if $check->[0] eq 'plain' && !grep { $_->[0] eq 'plain' } values %running;
  }
  print "wrong @{$_}[0 .. 2]\n" for sort { "@$a" cmp "@$b" } @wrong, values %running;
  print "done\n";
}

sub now {
  # CLOCK_MONOTONIC in seconds, without a module that perl-base does not have.
  open(my $in, '<', '/proc/uptime') or die "/proc/uptime: $!\n";
  return (split ' ', <$in>)[0];
}

sub child {
  my ($work) = @_;
  my $pid = fork;
  die "fork: $!\n" unless defined $pid;
  if (!$pid) {
    @children = ();
    $SIG{$_} = 'DEFAULT' for 'TERM', 'HUP';
    alarm 20;    # not inherited
    POSIX::_exit($work->() || 0);
  }
  push @children, $pid;
  return $pid;
}

sub wrong_sums {
  my $sum = 0;
  if (open(my $in, '<', '/proc/net/snmp')) {
    my %names;
    while (<$in>) {
      my ($proto, @words) = split;
      next unless $proto =~ /^(Tcp|Udp):/;
      if (my $names = $names{$proto}) {
        $names->[$_] eq 'InCsumErrors' and $sum += $words[$_] for 0 .. $#words;
      } else { $names{$proto} = \@words }
    }
  }
  if (open(my $in, '<', '/proc/net/snmp6')) { /^Udp6InCsumErrors\s+(\d+)/ and $sum += $1 while <$in> }
  return $sum;
}

print "here\n";
while (my $told = <STDIN>) {
  chomp $told;
  if ($told eq 'links') {
    my $answer = links();
    if ($answer eq 'ready' && $role eq 'server') {
      for my $family (4, 6) { child(sub { serve($family) }) }
    }
    print "$answer\n";
  } elsif ($told eq 'go') {
    check_all();
  } elsif ($told eq 'sums') {
    print wrong_sums(), "\n";
  }
}
