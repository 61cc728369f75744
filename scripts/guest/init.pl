#!/usr/bin/perl
# PID 1 of the guest. Its root is the host's file system, read only; over that goes memory, so that the guest sees the host's
# programs and this repository, may write everywhere, and changes nothing. Then one command, its status, and off.
#
# SHARE/ (host's folder, named on the kernel's command line): argv, env, cwd, writable, project: items that end in NUL; copy/;
# the guest writes out, err and status.
use strict;
use warnings;
use POSIX ':sys_wait_h';

# System calls by their numbers on x86-64, the only machine that Debian has User-Mode Linux for.
my $SYS_PIVOT_ROOT = 155;
my $SYS_REBOOT     = 169;
my @POWER_OFF      = (0xfee1dead, 672274793, 0x4321fedc, 0);
# Not on the overlay: dockerd's own overlays do not go there, and sockets of the host mean nothing here.
my @MEMORY  = qw(/run /var/lib/weft-lab /var/lib/docker /var/lib/openvswitch);
my @MODULES = qw(openvswitch veth bridge tun);

$ENV{PATH} = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

sub power_off { syscall($SYS_REBOOT, @POWER_OFF); sleep 60 }

sub fail { print STDERR "guest: $_[0]\n"; power_off() }

sub quiet { system(@_) == 0 or fail("@_: status $?") }

sub mount {
  my ($type, $from, $to, $options) = @_;
  quiet('mount', '-n', '-t', $type, '-o', $options // 'rw', $from, $to);
}

sub items {
  my ($file) = @_;
  open my $in, '<', $file or fail("$file: $!");
  local $/ = "\0";
  my @all = <$in>;
  chomp @all;
  return @all;
}

sub write_file {
  my ($file, $text) = @_;
  open my $out, '>', $file or fail("$file: $!");
  print $out $text;
  close $out or fail("$file: $!");
}

mount('proc', 'proc', '/proc');
my ($share)   = slurp('/proc/cmdline') =~ m{\bweft\.share=(\S+)} or fail('no weft.share=');
my ($release) = slurp('/proc/sys/kernel/osrelease') =~ /(\S+)/;
my $modules   = "/usr/lib/uml/modules/$release";

# 1. The root: memory over the host's files.
quiet('insmod', "$modules/kernel/fs/overlayfs/overlay.ko");
mount('tmpfs', 'tmpfs', '/mnt', 'size=80%');
mkdir "/mnt/$_" for qw(upper work root);
mount('overlay', 'overlay', '/mnt/root', 'lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work');
chdir '/mnt/root' or fail("chdir: $!");
# "." for both stacks the old root under the new one (pivot_root(2)), where it is taken away.
syscall($SYS_PIVOT_ROOT, my $new = '.', my $old = '.') == 0 or fail("pivot_root: $!");
quiet('umount', '-n', '-l', '.');
chdir '/' or fail("chdir: $!");

# 2. What a system has.
mount('proc',     'proc',   '/proc');
mount('sysfs',    'sysfs',  '/sys');
mount('devtmpfs', 'dev',    '/dev');
mkdir "/dev/$_" for qw(pts shm);
mount('devpts', 'devpts', '/dev/pts');
mount('tmpfs',  'tmpfs',  '/dev/shm');
symlink '/proc/self/fd', '/dev/fd';
symlink "/proc/self/fd/$_->[0]", "/dev/$_->[1]" for [0, 'stdin'], [1, 'stdout'], [2, 'stderr'];
for my $dir (@MEMORY) {
  quiet('mkdir', '-p', $dir);
  mount('tmpfs', 'tmpfs', $dir, 'mode=0755,size=80%');
}
mkdir "/run/$_" for qw(lock netns openvswitch home);
mount('tmpfs', 'tmpfs', '/sys/fs/cgroup', 'mode=0755');
for my $controller (grep { !/^#/ } split /\n/, slurp('/proc/cgroups')) {
  my ($name, undef, undef, $enabled) = split ' ', $controller;
  next unless $enabled;
  mkdir "/sys/fs/cgroup/$name";
  mount('cgroup', 'cgroup', "/sys/fs/cgroup/$name", $name);
}
quiet('mkdir', '-p', '/lib/modules', $share);
unlink "/lib/modules/$release";
symlink $modules, "/lib/modules/$release";
quiet('modprobe', '-a', @MODULES);
# dockerd's rules: this kernel has no nf_tables.
for my $program (map { ($_, "$_-save", "$_-restore") } qw(iptables ip6tables)) {
  unlink "/usr/sbin/$program";
  symlink 'xtables-legacy-multi', "/usr/sbin/$program";
}
quiet('ip', 'link', 'set', 'lo', 'up');
write_file('/proc/sys/kernel/hostname', 'guest');

# 3. The project's files from the copy, and the host's folders that the command may write to.
mount('hostfs', 'none', $share, $share);
my ($project) = items("$share/project");
for my $copy (glob "'$share/copy/'*") { quiet('mount', '-n', '--bind', $copy, $project . substr($copy, length "$share/copy/")) }
for my $folder (items("$share/writable")) { mount('hostfs', 'none', $folder, $folder) }

# 4. The command; as PID 1 we also collect what its daemons leave.
my ($cwd) = items("$share/cwd");
my @argv = items("$share/argv");
my $child = fork // fail("fork: $!");
if ($child == 0) {
  POSIX::setsid();
  open STDIN,  '<',  '/dev/null'   or die;
  open STDOUT, '>>', "$share/out" or die;
  open STDERR, '>>', "$share/err" or die;
  chdir $cwd or do { print STDERR "guest: $cwd: $!\n"; POSIX::_exit(126) };
  %ENV = map { split /=/, $_, 2 } items("$share/env");
  no warnings 'exec';
  exec { $argv[0] } @argv or do { print STDERR "guest: $argv[0]: $!\n"; POSIX::_exit(127) };
}
my $status = 125;
while ((my $pid = waitpid(-1, 0)) > 0) {
  next if $pid != $child;
  $status = WIFEXITED($?) ? WEXITSTATUS($?) : 128 + WTERMSIG($?);
  last;
}
write_file("$share/status", $status);
power_off();

sub slurp {
  my ($file) = @_;
  open my $in, '<', $file or fail("$file: $!");
  local $/;
  return scalar <$in>;
}
