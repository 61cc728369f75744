#!/usr/bin/perl
# traffic.pl send DESTINATION PORT RATE: UDP datagrams with numbers, RATE a second, each hundred from a port of their own, until
# standard input ends; then says how many. traffic.pl receive PORT: takes them until standard input ends, then says for each source
# "SOURCE COUNT LOST LAST": numbers missing between the first and the last, and when the last came (CLOCK_MONOTONIC, ns).
use strict;
use warnings;
use IO::Select;
use Socket;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC usleep);
$| = 1;
my ($what, @words) = @ARGV;
my $input = IO::Select->new(\*STDIN);

if ($what eq 'send') {
  my ($to, $port, $rate) = @words;
  my $address = pack_sockaddr_in($port, inet_aton($to));
  my ($n, $socket) = (0, undef);
  my $start = clock_gettime(CLOCK_MONOTONIC);
  print "ready\n";
  until ($input->can_read(0)) {
    my $due = int((clock_gettime(CLOCK_MONOTONIC) - $start) * $rate);
    for (; $n < $due; $n++) {
      if ($n % 100 == 0) {
        socket($socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
        bind($socket, pack_sockaddr_in(20000 + ($n / 100) % 20000, INADDR_ANY)) or die "bind: $!\n";
      }
      send($socket, pack('N', $n), 0, $address);
    }
    usleep(500);
  }
  print "$n\n";
} else {
  my ($port) = @words;
  socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
  setsockopt($socket, SOL_SOCKET, SO_RCVBUF, 8 << 20);
  bind($socket, pack_sockaddr_in($port, INADDR_ANY)) or die "bind: $!\n";
  my $all = IO::Select->new(\*STDIN, $socket);
  my %seen;
  print "ready\n";
  while (1) {
    my @ready = $all->can_read;
    if (grep { $_ == $socket } @ready) {
      my $from = recv($socket, my $data, 2000, 0);
      my (undef, $source) = unpack_sockaddr_in($from);
      my $one = $seen{inet_ntoa($source)} //= { count => 0, first => unpack('N', $data), most => 0 };
      $one->{count}++;
      my $n = unpack('N', $data);
      $one->{most} = $n if $n > $one->{most};
      $one->{last} = clock_gettime(CLOCK_MONOTONIC);
      next;
    }
    last;
  }
  printf "%s %d %d %.0f\n", $_, $seen{$_}{count}, $seen{$_}{most} - $seen{$_}{first} + 1 - $seen{$_}{count}, $seen{$_}{last} * 1e9
    for sort keys %seen;
}
