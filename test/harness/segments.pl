#!/usr/bin/perl
# segments.pl receive IP PORT COUNT | send IP PORT FROM-IP TIMES: UDP segmentation offload (udp(7), UDP_SEGMENT) as QUIC uses it.
# The sender hands the kernel TIMES buffers of ten datagrams each. The receiver says "ready", then, when it has COUNT different
# datagrams that are as they were sent or when nothing more has come for a second after the first, how many those are.
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
$| = 1;

use constant { SOL_UDP => 17, UDP_SEGMENT => 103, SIZE => 1200, SEGMENTS => 10 };
my ($role, $ip, $port, @rest) = @ARGV;
my $six = $ip =~ /:/;

sub address {
  my ($text, $port) = @_;
  return $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $text)) : pack_sockaddr_in($port, inet_aton($text));
}

sub datagram { return pack('N', $_[0]) . chr($_[0] % 251) x (SIZE - 4) }

socket(my $socket, $six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
if ($role eq 'send') {
  my ($own, $times) = @rest;
  bind($socket, address($own, 0)) or die "$own: $!\n";
  setsockopt($socket, SOL_UDP, UDP_SEGMENT, pack('i', SIZE)) or die "UDP_SEGMENT: $!\n";
  for my $i (0 .. $times - 1) {
    my $buffer = join('', map { datagram($i * SEGMENTS + $_) } 0 .. SEGMENTS - 1);
    send($socket, $buffer, 0, address($ip, $port)) == length $buffer or die "send: $!\n";
  }
} else {
  my ($count) = @rest;
  bind($socket, address($ip, $port)) or die "$ip: $!\n";
  print "ready\n";
  my (%got, $wait);
  while (keys %got < $count) {
    my $bits = '';
    vec($bits, fileno($socket), 1) = 1;
    # The first may wait for whoever starts the sender.
    last unless select($bits, undef, undef, $wait // 20) > 0;
    $wait = 1;
    recv($socket, my $datagram, 65536, 0) // die "recv: $!\n";
    my $number = unpack('N', $datagram);
    $got{$number} = 1 if $datagram eq datagram($number);
  }
  print scalar(keys %got), "\n";
}
