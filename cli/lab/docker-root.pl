#!/usr/bin/perl
# Holds the file system that a host's dockerd runs in, when Docker comes from another Debian than the machine's.
#
#   unshare --mount --propagation unchanged perl docker-root.pl LAB HOST ROOT     (in the mount namespace of the host)
#
# The programs are ROOT's (usr, etc), all else is the host's. pivot_root, not chroot: runc mounts and pivots in what is "/"
# here. A process of its own holds the namespace, so that the containers' mounts outlive a dockerd, as on a real host.
# ROOT itself is not written to: hosts share it.
use strict;
use warnings;
use POSIX ();

my ($lab, $host, $root) = @ARGV;
die "usage: docker-root.pl LAB HOST ROOT\n" unless defined $root;
my $dir = "/run/weft-lab/$lab/$host";
my $new = "$dir/docker-root";
$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';

sub mount { system('mount', @_) == 0 or die "mount @_ failed\n" }

sub names {
  my ($of) = @_;
  opendir(my $list, $of) or die "$of: $!\n";
  return grep { !/^\.\.?$/ } readdir $list;
}

mkdir $new;
mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', $new);

# bin, lib and the like are links into usr.
my %theirs = (usr => 1, etc => 1);
for my $name (grep { -l "$root/$_" && readlink("$root/$_") =~ m{^/?usr/} } names($root)) {
  symlink(readlink("$root/$name"), "$new/$name") or die "$new/$name: $!\n";
  $theirs{$name} = 1;
}
for my $name ('usr', 'etc') {
  mkdir "$new/$name";
  mount('--bind', "$root/$name", "$new/$name");
  mount('-o', 'remount,bind,ro', "$new/$name");
}
# Names are resolved as on the machine.
for my $file (grep { -f && -f "$new$_" && !-l "$new$_" } '/etc/resolv.conf', '/etc/hosts') {
  mount('--bind', $file, "$new$file");
}
mkdir "$new/var";
mkdir "$new/var/$_" for 'lib', 'cache', 'tmp';
symlink('/run', "$new/var/run");
for my $name ('var/lib/weft-lab', 'var/cache/weft-lab', grep { !-l "/$_" && -d _ && !$theirs{$_} && $_ ne 'var' } names('/')) {
  mkdir "$new/$name";
  mount('--rbind', "/$name", "$new/$name");
}

mkdir "$new/.old";
system('pivot_root', $new, "$new/.old") == 0 or die "pivot_root failed\n";
chdir '/';
system('umount', '-l', '/.old') == 0 or die "umount /.old failed\n";
rmdir '/.old';
$0 = "weft-lab-docker-root $lab $host";

# The pid file is written last: whoever sees it may enter.
open(my $pidfile, '>', "$dir/docker-root.pid.new") or die "docker-root.pid: $!\n";
print $pidfile "$$\n";
close $pidfile;
rename "$dir/docker-root.pid.new", "$dir/docker-root.pid" or die "docker-root.pid: $!\n";
POSIX::pause() while 1;
