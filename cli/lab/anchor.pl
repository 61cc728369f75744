#!/usr/bin/perl
# Holds a simulated host: its namespaces, and the socket that dockerd finds its plugin at.
#
#   nsenter --net=NETNS unshare --mount --uts --propagation private perl anchor.pl LAB HOST [LOGFILE COMMAND...]
#
# With a COMMAND (the agent) it listens on /run/docker/plugins/weft.sock, never accepts, and hands the socket to the command as
# systemd does (LISTEN_FDS). So the socket outlives the agent: dockerd waits for the next agent instead of failing.
# It is also the host's init: it starts the other daemons, and collects what dies here at once (dockerd takes a containerd that is
# still a zombie for a live one).
# Control socket: one line there, "agent" or "run\tLOGFILE\tPROGRAM\tARGUMENT...", the pid or a complaint back.
# In Perl because Node cannot listen without accepting, and perl-base is on every Debian.
use strict;
use warnings;
use Errno;
use POSIX ();
use Socket;

# prctl(2) by machine (asm/unistd.h).
my %prctl = (x86_64 => 157, aarch64 => 167, riscv64 => 167);

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

my $prctl = $prctl{ (POSIX::uname())[4] };
syscall($prctl, 36, 1, 0, 0, 0) if $prctl;    # PR_SET_CHILD_SUBREAPER

my $agent = 0;
sub reap {
  while ((my $pid = waitpid(-1, POSIX::WNOHANG())) > 0) {
    $agent = 0 if $pid == $agent;
  }
}
$SIG{CHLD} = \&reap;
$SIG{PIPE} = 'IGNORE';
$SIG{HUP} = 'IGNORE';
$0 = "weft-lab-anchor $lab $host";

# The pid file is written last: whoever sees it may enter.
open(my $pidfile, '>', "$dir/anchor.pid.new") or die "anchor.pid: $!\n";
print $pidfile "$$\n";
close $pidfile;
rename "$dir/anchor.pid.new", "$dir/anchor.pid" or die "anchor.pid: $!\n";

sub start {
  my ($out, $listener, @words) = @_;
  my $pid = fork;
  return "fork: $!" unless defined $pid;
  return $pid if $pid;
  $SIG{$_} = 'DEFAULT' for 'CHLD', 'PIPE', 'HUP';
  POSIX::setsid();
  open(STDIN, '<', '/dev/null');
  open(STDOUT, '>>', $out);
  open(STDERR, '>&', \*STDOUT);
  if ($listener) {
    # dup2 clears close-on-exec, unless the socket is 3 already.
    if (fileno($listener) == 3) { fcntl($listener, 2, 0) }
    else { POSIX::dup2(fileno($listener), 3) }
    $ENV{LISTEN_FDS} = 1;
    $ENV{LISTEN_PID} = $$;
    $ENV{LISTEN_FDNAMES} = 'weft.sock';
  }
  exec { $words[0] } @words or POSIX::_exit(127);
}

sub zombie {
  open(my $stat, '<', "/proc/$_[0]/stat") or return 1;
  return (<$stat> // '') =~ /\) Z /;
}

sub answer {
  my ($verb, $out, @words) = split /\t/, $_[0], -1;
  return start($out, undef, @words) if $verb eq 'run' && @words;
  return 'unknown request' if $verb ne 'agent';
  return 'no agent here' unless @command;
  # It may be seen as dead before it can be collected: its threads end one by one.
  waitpid($agent, 0), $agent = 0 if $agent && zombie($agent);
  $agent = start($log, $plugin, @command) unless $agent && kill(0, $agent);
  return $agent;
}

while (1) {
  my $client;
  unless (accept($client, $control)) {
    next if $!{EINTR};
    die "accept: $!\n";
  }
  my $line = <$client>;
  chomp $line if defined $line;
  syswrite($client, answer($line) . "\n") if defined $line;
  close $client;
}
