#!/usr/bin/perl
# pairs.pl PID=ADDRESS...: pings from the network namespace of each process to the address of every other one, all at once, until
# each pair has answered. Prints milliseconds: until the last pair answered, and how many answered the very first packet; or the
# pairs that were still silent after 20 s (exit 1). One process for all of it: a ping(8) for each of 900 pairs would measure itself.
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time);

my %setns = (x86_64 => 308, aarch64 => 268, riscv64 => 268);
my $setns = $setns{(split ' ', `uname -m`)[0]} or die "no setns on this machine\n";
my ($again, $deadline) = (0.05, 20);

my @ends;
for (@ARGV) {
  my ($pid, $ip) = split /=/;
  open(my $ns, '<', "/proc/$pid/ns/net") or die "process $pid: $!\n";
  syscall($setns, fileno($ns), 0x40000000) == 0 or die "setns: $!\n";
  # A raw socket stays in the namespace that it was made in.
  socket(my $socket, PF_INET, SOCK_RAW, getprotobyname('icmp') // 1) or die "socket: $!\n";
  push @ends, {ip => $ip, to => scalar(sockaddr_in(0, inet_aton($ip))), socket => $socket, id => 0x4000 + @ends};
}

sub echo {
  my ($id, $seq) = @_;
  my $sum = 0;
  $sum += $_ for unpack('n*', pack('CCnnn', 8, 0, 0, $id, $seq));
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  return pack('CCnnn', 8, 0, ~$sum & 0xffff, $id, $seq);
}

# Sequence number: the index of the end that is pinged, and (in the upper bit) whether it was the first packet.
my (%silent, $first);
for my $from (0 .. $#ends) { $silent{"$from $_"} = 1 for grep { $_ != $from } 0 .. $#ends }
$first = 0;
my $began = time;
for (my $round = 0; %silent; $round++) {
  if (time - $began > $deadline) {
    print join(' ', map { my ($f, $t) = split ' '; "$ends[$f]{ip}>$ends[$t]{ip}" } sort keys %silent), "\n";
    exit 1;
  }
  for (keys %silent) {
    my ($from, $to) = split ' ';
    send($ends[$from]{socket}, echo($ends[$from]{id}, $to | ($round == 0 ? 0x8000 : 0)), 0, $ends[$to]{to});
    collect(0);
  }
  my $until = time + $again;
  collect($until - time) while %silent && time < $until;
}
printf "%.1f %d\n", (time - $began) * 1000, $first;

sub collect {
  my ($wait) = @_;
  my $want = '';
  vec($want, fileno($_->{socket}), 1) = 1 for @ends;
  return if select(my $ready = $want, undef, undef, $wait < 0 ? 0 : $wait) <= 0;
  for my $from (0 .. $#ends) {
    next unless vec($ready, fileno($ends[$from]{socket}), 1);
    defined recv($ends[$from]{socket}, my $packet, 2048, MSG_DONTWAIT) or next;
    my ($type, undef, undef, $id, $seq) = unpack('CCnnn', substr($packet, (ord($packet) & 15) * 4));
    next unless $type == 0 && $id == $ends[$from]{id};
    my $to = $seq & 0x7fff;
    $first++ if delete($silent{"$from $to"}) && ($seq & 0x8000);
  }
}
