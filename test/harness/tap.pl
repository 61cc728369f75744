#!/usr/bin/perl
# tap.pl DEV MAC IP [TAG]: as much of a virtual machine as a test needs. Opens the tap DEV, which is there already, answers ARP and ICMP
# echo for its address, sends frames that come as lines of hex, and tells of each "request SRC" answered, "reply SRC" received, and
# "arp SRC MAC" (an ARP reply) received. With a TAG, all that it sends has that 802.1Q tag, and it takes nothing else.
use strict;
use warnings;
$| = 1;
my ($device, $mac, $ip, $tag) = @ARGV;
$mac = pack('H*', $mac =~ s/://gr);
$ip = pack('C4', split /\./, $ip);

# TUNSETIFF with IFF_TAP | IFF_NO_PI (linux/if_tun.h).
open(my $tap, '+<', '/dev/net/tun') or die "/dev/net/tun: $!\n";
ioctl($tap, 0x400454ca, pack('Z16 S x22', $device, 0x1002)) or die "$device: $!\n";
print "ready\n";

sub checksum {
  my ($data) = @_;
  $data .= "\0" if length($data) % 2;
  my $sum = unpack('%32n*', $data);
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  return pack('n', ~$sum & 0xffff);
}

sub give {
  my ($frame) = @_;
  substr($frame, 12, 0) = pack('nn', 0x8100, $tag) if defined $tag;
  syswrite($tap, $frame);
}

sub answer {
  my ($frame) = @_;
  if (defined $tag) {
    my ($tpid, $tci) = unpack('nn', substr($frame, 12, 4));
    return unless $tpid == 0x8100 && ($tci & 0xfff) == $tag;
    substr($frame, 12, 4) = '';
  }
  my ($to, $from, $type, $rest) = unpack('a6 a6 n a*', $frame);
  if ($type == 0x0806) {
    my ($head, $operation, $sender, $sender_ip, undef, $asked) = unpack('a6 n a6 a4 a6 a4', $rest);
    print 'arp ', join('.', unpack('C4', $sender_ip)), ' ', join(':', unpack('(H2)6', $sender)), "\n" if $operation == 2;
    return unless $operation == 1 && $asked eq $ip;
    give(pack('a6 a6 n a6 n a6 a4 a6 a4', $from, $mac, 0x0806, $head, 2, $mac, $ip, $sender, $sender_ip));
    return;
  }
  return unless $type == 0x0800 && $to eq $mac && substr($rest, 16, 4) eq $ip && ord(substr($rest, 9, 1)) == 1;
  my $src = substr($rest, 12, 4);
  my $icmp = substr($rest, 20, unpack('n', substr($rest, 2, 2)) - 20);
  print 'reply ', join('.', unpack('C4', $src)), "\n" if ord($icmp) == 0;
  return unless ord($icmp) == 8;
  substr($icmp, 0, 4) = "\0\0\0\0";
  substr($icmp, 2, 2) = checksum($icmp);
  my $header = substr($rest, 0, 20);
  substr($header, 12, 8) = $ip . $src;
  substr($header, 10, 2) = "\0\0";
  substr($header, 10, 2) = checksum($header);
  give($from . $mac . pack('n', 0x0800) . $header . $icmp);
  print 'request ', join('.', unpack('C4', $src)), "\n";
}

my $lines = '';
while (1) {
  my $ready = '';
  vec($ready, fileno($tap), 1) = 1;
  vec($ready, fileno(STDIN), 1) = 1;
  next if select($ready, undef, undef, undef) < 1;
  if (vec($ready, fileno($tap), 1)) {
    my $read = sysread($tap, my $frame, 65536);
    exit 0 unless defined $read || $!{EAGAIN} || $!{EIO};
    answer($frame) if $read;
  }
  if (vec($ready, fileno(STDIN), 1)) {
    sysread(STDIN, $lines, 65536, length $lines) or exit 0;
    give(pack('H*', $1)) while $lines =~ s/^([0-9a-f]+)\n//;
  }
}
