' Writes the number of the disk, or says on standard error why there is none, and ends with 1.
Option Explicit
Const RULE = "only"
Const NAMES = ""

Dim disk, found, size, best, count, name
found = -1
count = 0
For Each disk In Disks()
    If BuiltIn(disk) Then
        count = count + 1
        size = CDbl(disk.Size)
        If count = 1 Or (RULE = "smallest" And size < best) Or (RULE = "largest" And size > best) Then
            found = disk.Index
            best = size
        End If
    End If
Next

If RULE = "named" Then
    found = -1
    For Each name In Split(NAMES, " ")
        If found < 0 Then found = Told(name)
    Next
    If found < 0 Then Fail "this machine has none of " & NAMES & ". Windows knows disks by model and serial number: write /dev/disk/by-id/nvme-MODEL_SERIAL or such, also with *"
ElseIf count = 0 Then
    Fail "this machine has no disk that Windows could be installed to, or this WinPE has no driver for it"
ElseIf RULE = "only" And count > 1 Then
    Fail "this machine has " & count & " disks: the setting disk must say which"
End If
WScript.Echo found

Function Disks()
    Set Disks = GetObject("winmgmts:\\.\root\cimv2").ExecQuery("SELECT * FROM Win32_DiskDrive")
End Function

' A stick or a card that was left in a machine is not its disk.
Function BuiltIn(disk)
    BuiltIn = False
    If IsNull(disk.Size) Or IsNull(disk.MediaType) Then Exit Function
    If disk.InterfaceType = "USB" Or Left(disk.PNPDeviceID, 7) = "USBSTOR" Then Exit Function
    BuiltIn = CDbl(disk.Size) > 0 And InStr(disk.MediaType, "Fixed") = 1
End Function

' The first whose model and serial number, or serial number alone, a name of Linux's tells; -1 where
' none is. A name with * or ? takes only what is built in.
Function Told(name)
    Dim disk, glob, serial, pattern
    Told = -1
    glob = Mid(name, InStrRev(name, "/") + 1)
    If Left(name, 16) <> "/dev/disk/by-id/" Or InStr(glob, "-") = 0 Then Exit Function
    glob = Mid(glob, InStr(glob, "-") + 1)
    If Left(glob, 4) = "eui." Then glob = Mid(glob, 5)
    Set pattern = New RegExp
    pattern.Global = True
    pattern.Pattern = "\."
    glob = pattern.Replace(glob, "\.")
    pattern.IgnoreCase = True
    pattern.Pattern = "^" & Replace(Replace(glob, "*", ".*"), "?", ".") & "$"
    For Each disk In Disks()
        serial = Trim("" & disk.SerialNumber)
        If BuiltIn(disk) Or InStr(glob, "*") + InStr(glob, "?") = 0 Then
            If pattern.Test(Replace(Trim("" & disk.Model) & "_" & serial, " ", "_")) _
                Or (serial <> "" And pattern.Test(serial)) _
                Or (serial <> "" And pattern.Test(Replace(Replace(serial, "_", ""), ".", ""))) Then
                Told = disk.Index
                Exit Function
            End If
        End If
    Next
End Function

Sub Fail(why)
    WScript.StdErr.WriteLine "no disk was touched: " & why
    WScript.Quit 1
End Sub
