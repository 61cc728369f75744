#!/usr/bin/perl
# VXLAN frames of exact sizes to other hosts' VTEPs, and those that come out of this host's tunnel device (tunnel.ts).
#
#   perl tunnel.pl DEVICE IFINDEX VTEP PORT RUN
#
# VTEP and PORT are this host's and of the tunnel; RUN is 16 hex digits. Says "ready"; then, told
#   send PATH VTEP SIZE...    sends underlay packets of those sizes, which may not be fragmented, and says "refused [SIZE...]": those
#                             that this host did not send, or that a router has said to be too long
#   heard                     says "heard [PATH:SIZE...]": what has come so far in this run
# Ends with its standard input.
# A frame goes out as the tunnel's own do, from this host's VTEP to the port of the tunnel, so that whoever judges those judges it too. It
# comes out of the tunnel device, where a packet socket takes it before the datapath drops it: no network has its VNI.
use strict;
use warnings;
use List::Util qw(max);
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);

use constant {
  PF_PACKET => 17, ETH_P_ALL => 3, SO_ATTACH_FILTER => 26, SO_RCVBUFFORCE => 33,
  IP_MTU_DISCOVER => 10, IPV6_MTU_DISCOVER => 23, PMTUDISC_PROBE => 3, EMSGSIZE => 90,
  ETHERTYPE => 0x88b5,    # IEEE 802, for local experiments
  MARK => 'weft', HEAD => 14 + 20,
};
my ($device, $ifindex, $vtep, $port, $run) = @ARGV;
die "usage: see the head of this file\n" unless @ARGV == 5;
$run = pack('H16', $run);
STDOUT->autoflush(1);
$SIG{PIPE} = 'IGNORE';
alarm 300;    # whatever happens, nothing of this stays

my $six = $vtep =~ /:/;
my $outer = $six ? 48 : 28;    # IP and UDP

sub address {
  my ($text, $at) = @_;
  return $six ? pack_sockaddr_in6($at, inet_pton(AF_INET6, $text)) : pack_sockaddr_in($at, inet_aton($text));
}

# All protocols, or the datapath's program would drop them first (packet(7)); but only ours, by a classic filter (socket(7)).
socket(my $ear, PF_PACKET, SOCK_RAW, 0) or die "packet socket: $!\n";
my $filter = join('', map { pack('S C C L', @$_) } [0x28, 0, 0, 12], [0x15, 0, 1, ETHERTYPE], [0x06, 0, 0, 64], [0x06, 0, 0, 0]);
setsockopt($ear, SOL_SOCKET, SO_ATTACH_FILTER, pack('S x![J] P', 4, $filter)) or die "filter: $!\n";
setsockopt($ear, SOL_SOCKET, SO_RCVBUFFORCE, pack('i', 8 << 20));
bind($ear, pack('S n i S C C a8', PF_PACKET, ETH_P_ALL, $ifindex, 0, 0, 0, '')) or die "$device: $!\n";
print "ready\n";

my (%heard, %voices);

# Destination and source are nobody's: 02:00:00:00:00:00 is a local address, and a frame from the device's own would be a loop.
sub frame {
  my ($path, $size) = @_;
  my $inner = pack('H12 H12 n a4 a8 N N', '020000000000', '020000000001', ETHERTYPE, MARK, $run, $path, $size);
  my $vxlan = pack('C x3 N', 0x08, 0) . $inner;    # RFC 7348: the VNI is valid, and 0
  return $vxlan . "\0" x ($size - $outer - length $vxlan);
}

# Connected, so that what routers say comes back as an error.
sub voice {
  my ($to) = @_;
  return $voices{$to} if $voices{$to};
  socket(my $socket, $six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
  setsockopt($socket, $six ? 41 : 0, $six ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, pack('i', PMTUDISC_PROBE)) or die "socket: $!\n";
  bind($socket, address($vtep, 0)) or die "$vtep: $!\n";
  connect($socket, address($to, $port)) or die "$to: $!\n";
  return $voices{$to} = $socket;
}

# All of them twice: one that is lost says nothing.
sub give {
  my ($path, $to, @sizes) = @_;
  my %refused;
  my $socket = eval { voice($to) } or return;    # no route: nothing of it will be heard
  for (1, 2) {
    for my $size (@sizes) {
      # What came back for an earlier one is not this one's error.
      my $told = unpack('i', getsockopt($socket, SOL_SOCKET, SO_ERROR));
      $refused{ max(@sizes) } = 1 if $told == EMSGSIZE;
      $refused{$size} = 1 if !defined send($socket, frame($path, $size), 0) && $! == EMSGSIZE;
    }
    select(undef, undef, undef, 0.02);
  }
  return sort { $a <=> $b } keys %refused;
}

sub hear {
  my $frame = '';
  return unless defined recv($ear, $frame, 64, 0) && length $frame >= HEAD;
  my (undef, undef, $type, $mark, $of, $path, $size) = unpack('a6 a6 n a4 a8 N N', $frame);
  $heard{"$path:$size"} = 1 if $type == ETHERTYPE && $mark eq MARK && $of eq $run;
}

my $lines = '';
while (1) {
  my $ready = '';
  vec($ready, fileno($_), 1) = 1 for $ear, \*STDIN;
  next if select($ready, undef, undef, undef) < 1;
  if (vec($ready, fileno($ear), 1)) {
    hear();
    next;    # all that is here before what is asked
  }
  sysread(STDIN, $lines, 65536, length $lines) or exit 0;
  while ($lines =~ s/^([^\n]*)\n//) {
    my ($what, @words) = split / /, $1;
    if ($what eq 'send') { print join(' ', 'refused', give(@words)), "\n" }
    elsif ($what eq 'heard') { print join(' ', 'heard', sort keys %heard), "\n" }
  }
}
