#!/usr/bin/perl
# Holds a simulated host: its namespaces, and the socket that dockerd finds its plugin at.
#
#   nsenter --net=NETNS unshare --mount --uts --propagation private perl anchor.pl LAB HOST [LOGFILE COMMAND...]
#
# With a COMMAND (the agent) it listens on /run/docker/plugins/weft.sock, never accepts, and hands the socket to the command as
# systemd does (LISTEN_FDS). So the socket outlives the agent: dockerd waits for the next agent instead of failing.
# Control socket: connect, send "start\n", read "PID\n". In Perl because Node cannot listen without accepting, and
# perl-base is on every Debian.
use strict;
use warnings;
use Errno;
use POSIX ();
use Socket;

my ($lab, $host, $log, @command) = @ARGV;
die "usage: anchor.pl LAB HOST [LOGFILE COMMAND...]\n" unless defined $host;
my $root = '/run/weft-lab';
my $dir = "$root/$lab/$host";
$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';

sub mount { system('mount', @_) == 0 or die "mount @_ failed\n" }

# Names of other namespaces are mounts too: kept here they would keep deleted namespaces alive.
system("umount -l /run/netns/* /run/netns >/dev/null 2>&1") if -d '/run/netns';
# The host's own /run; in it the lab's directory once more, so that the same paths hold inside and outside.
mkdir "$dir/run/weft-lab";
mount('--bind', $root, "$dir/run/weft-lab");
mount('--rbind', "$dir/run", '/run');
for my $file (['/proc/sys/kernel/hostname', $host]) {
  open(my $out, '>', $file->[0]) or die "$file->[0]: $!\n";
  print $out $file->[1];
  close $out or die "$file->[0]: $!\n";
}
mkdir $_, 0755 for '/run/docker', '/run/docker/plugins', '/run/openvswitch', '/run/weft', '/run/lock';

sub listen_at {
  my ($path) = @_;
  unlink $path;
  socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
  bind($socket, pack_sockaddr_un($path)) or die "bind $path: $!\n";
  chmod 0600, $path;
  listen($socket, 128) or die "listen $path: $!\n";
  return $socket;
}
my $plugin = @command ? listen_at('/run/docker/plugins/weft.sock') : undef;
my $control = listen_at("$dir/anchor.sock");

my $agent = 0;
$SIG{CHLD} = sub {
  while ((my $pid = waitpid(-1, POSIX::WNOHANG())) > 0) {
    $agent = 0 if $pid == $agent;
  }
};
$SIG{PIPE} = 'IGNORE';
$SIG{HUP} = 'IGNORE';
$0 = "weft-lab-anchor $lab $host";

# The pid file is written last: whoever sees it may enter.
open(my $pidfile, '>', "$dir/anchor.pid.new") or die "anchor.pid: $!\n";
print $pidfile "$$\n";
close $pidfile;
rename "$dir/anchor.pid.new", "$dir/anchor.pid" or die "anchor.pid: $!\n";

sub start_agent {
  return $agent if $agent && kill(0, $agent);
  my $pid = fork;
  return "fork: $!" unless defined $pid;
  return $agent = $pid if $pid;
  $SIG{$_} = 'DEFAULT' for 'CHLD', 'PIPE', 'HUP';
  POSIX::setsid();
  open(STDIN, '<', '/dev/null');
  open(STDOUT, '>>', $log);
  open(STDERR, '>&', \*STDOUT);
  # dup2 clears close-on-exec, unless the socket is 3 already.
  if (fileno($plugin) == 3) { fcntl($plugin, 2, 0) }
  else { POSIX::dup2(fileno($plugin), 3) }
  $ENV{LISTEN_FDS} = 1;
  $ENV{LISTEN_PID} = $$;
  $ENV{LISTEN_FDNAMES} = 'weft.sock';
  exec { $command[0] } @command or POSIX::_exit(127);
}

while (1) {
  my $client;
  unless (accept($client, $control)) {
    next if $!{EINTR};
    die "accept: $!\n";
  }
  my $line = <$client>;
  my $answer = !defined $line ? '' : $line ne "start\n" ? 'unknown request' : !@command ? 'no agent here' : start_agent();
  syswrite($client, "$answer\n");
  close $client;
}
